"""slices.json: when a load had its turns, where engines that stand together are loaded in turn."""

from __future__ import annotations

import itertools
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from servestorm.methods.slices import SECOND_NS, Floats, LoadTurns, Times
from servestorm.rundir.shapes.file_shape import FileShape, Share, Whole

_ROUNDING_NS = 1_000_000


class SliceFile(FileShape):
    """One slice of a load; moments are of the monotonic clock."""

    begin_ns: Whole
    """Of the lead-in."""
    end_ns: Whole
    cpu_s: Share | None
    """CPU time of this load's servers between the gaps before and after the slice."""
    idle_cpu_s: Share | None
    """CPU time of this load's servers while the slice of that number of the others ran."""
    idle_s: Share | None
    """Seconds of that."""


class SlicesFile(FileShape):
    """slices.json: the measured part of a slice begins `lead_s` after it and ends with it."""

    lead_s: Share
    length_s: Annotated[float, Field(gt=0, le=1e9)]
    slices: Annotated[list[SliceFile], Field(min_length=1)]

    @model_validator(mode="after")
    def _slices_are_in_order_and_as_long_as_they_say(self) -> SlicesFile:
        length_ns = int((self.lead_s + self.length_s) * SECOND_NS)
        for place, one in enumerate(self.slices):
            if abs(one.end_ns - one.begin_ns - length_ns) > _ROUNDING_NS:
                raise ValueError(f"slices.{place}: it is not {self.lead_s + self.length_s:g} s long")
        if any(after.begin_ns < before.end_ns for before, after in itertools.pairwise(self.slices)):
            raise ValueError("slices: they are not in order")
        return self

    @property
    def duration_s(self) -> float:
        """Measured seconds of all slices."""
        return self.length_s * len(self.slices)

    @property
    def turns(self) -> LoadTurns:
        """The slices as arrays."""
        begin_ns = _times([one.begin_ns for one in self.slices])
        return LoadTurns(
            begin_ns=begin_ns,
            measured_ns=begin_ns + int(self.lead_s * SECOND_NS),
            end_ns=begin_ns + int((self.lead_s + self.length_s) * SECOND_NS),
            cpu_s=_floats([one.cpu_s for one in self.slices]),
            idle_cpu_s=_floats([one.idle_cpu_s for one in self.slices]),
            idle_s=_floats([one.idle_s for one in self.slices]),
        )


def _times(values: list[int]) -> Times:
    return np.array(values, np.int64)


def _floats(values: list[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)
