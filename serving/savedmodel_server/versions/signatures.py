"""What a SavedModel's signatures take and give, free of tensorflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.savedmodel_server.dtypes import NUMPY, Array
from serving.savedmodel_server.errors import invalid

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output."""

    name: str
    tensor: str
    """Name in the graph, such as `serving_default_x:0`."""
    dtype: int
    """tensorflow.DataType number."""
    shape: tuple[int, ...] | None
    """-1 where a dimension is open; None where the rank is. No tensor is held against it, as in TensorFlow Serving."""

    @property
    def numpy_dtype(self) -> np.dtype[Any] | None:
        """None for a type that neither JSON nor numpy can carry."""
        return NUMPY.get(self.dtype)


@dataclass(frozen=True)
class Signature:
    """One entry of SavedModel's signature_def; inputs and outputs are in name order."""

    name: str
    method_name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, Array] = field(default_factory=dict)

    def arrange(self, given: Mapping[str, Array]) -> tuple[Array, ...]:
        """Arrays in the order of `inputs`, defaults filled in; raises RequestError where names differ."""
        inputs = self.inputs
        if len(given) != len(inputs) or given.keys() != inputs.keys():
            given = self._with_defaults(given)
        return tuple(given[name] for name in inputs)

    def _with_defaults(self, given: Mapping[str, Array]) -> Mapping[str, Array]:
        filled = {**self.defaults, **given}
        extra, missing = sorted(given.keys() - self.inputs.keys()), sorted(self.inputs.keys() - filled.keys())
        if extra or missing:
            raise invalid(
                f"input size does not match signature: {len(given)}!={len(self.inputs)} "
                f"len({{{','.join(sorted(given))}}}) != len({{{','.join(self.inputs)}}}). "
                f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
            )
        return filled
