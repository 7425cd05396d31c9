"""One loaded SavedModel version: a session of TensorFlow's C API, its signatures, and calls of them.

The model runs in a session, as in TensorFlow Serving: it serves SavedModels of TensorFlow 1 and 2 alike.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from serving.savedmodel_server.dtypes import Array
from serving.savedmodel_server.errors import Code, RequestError, invalid
from serving.savedmodel_server.runtime.c_api import give_memory_back
from serving.savedmodel_server.runtime.graph_session import GraphSession, PreparedRun, load_saved_model
from serving.savedmodel_server.runtime.graph_weights import is_mostly_dense, read_meta_graph
from serving.savedmodel_server.versions.batching import BatchingParameters
from serving.savedmodel_server.versions.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from serving.savedmodel_server.versions.tensor_proto import decode_tensor

LOG = logging.getLogger("savedmodel_server")
_INTERNAL_SIGNATURES = "__saved_model_"
"""How the names of TensorFlow's own signatures begin, which no request calls."""


@dataclass(frozen=True)
class ServableOptions:
    """How versions are loaded, the same for all of a server."""

    tags: tuple[str, ...] = ("serve",)
    intra_op_threads: int = 0
    """0 leaves the choice to TensorFlow."""
    inter_op_threads: int = 0
    batching: BatchingParameters | None = None

    def session_config(self, *, fuses: bool = True) -> bytes:
        """A serialized ConfigProto; `fuses` lets TensorFlow fuse operations."""
        from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

        config = config_pb2.ConfigProto(
            intra_op_parallelism_threads=self.intra_op_threads,
            inter_op_parallelism_threads=self.inter_op_threads,
            allow_soft_placement=True,
        )
        if not fuses:
            config.graph_options.rewrite_options.remapping = rewriter_config_pb2.RewriterConfig.OFF
        serialized: bytes = config.SerializeToString()
        return serialized


class Servable:
    """A loaded version. Calls are safe from any thread; `close` ends them."""

    def __init__(self, name: str, version: int, path: Path, options: ServableOptions) -> None:
        """Load the SavedModel at `path`; raises RequestError with TensorFlow's error."""
        self.name = name
        self.version = version
        self.options = options
        self._runs: dict[tuple[str, tuple[str, ...]], PreparedRun] = {}
        self._lock = Lock()
        self.waiting_rows = 0
        """Rows that the dispatcher has taken and not yet answered; its thread alone counts them."""
        self._session, self.signature_protos = _load(path, options)
        self.signatures = _signatures(self.signature_protos)
        self.unbatched: dict[str, str] = {}
        """Why a signature is not batched though batching is on, by its name."""
        if options.batching is not None:
            for signature in self.signatures.values():
                reason = why_unbatched(signature)
                if reason and not signature.name.startswith(_INTERNAL_SIGNATURES):
                    self._leave_unbatched(signature, reason)

    def _leave_unbatched(self, signature: Signature, reason: str) -> None:
        self.unbatched[signature.name] = reason
        LOG.warning(
            "event=unbatched model=%s version=%d signature=%s reason=%r",
            self.name, self.version, signature.name, reason,
        )  # fmt: skip

    def signature(self, key: str) -> Signature:
        """By key, the default one where it is empty; raises RequestError."""
        key = key or DEFAULT_SIGNATURE
        try:
            return self.signatures[key]
        except KeyError:
            raise RequestError(Code.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.') from None

    def rest_signature(self, key: str) -> Signature:
        """As `signature`, with the REST API's message and code for a missing one."""
        key = key or DEFAULT_SIGNATURE
        if key not in self.signatures:
            raise invalid(f'Serving signature name: "{key}" not found in signature def')
        return self.signatures[key]

    def batches(self, signature: Signature) -> bool:
        """True where calls of this signature share batches."""
        return self.options.batching is not None and signature.name not in self.unbatched

    def check_rows(self, signature: Signature, arrays: Sequence[Array]) -> None:
        """Refuse what TensorFlow Serving's batching session refuses; raises RequestError.

        A scalar is served, past the batches.
        """
        parameters = self.options.batching
        if parameters is None or not arrays or any(not array.ndim for array in arrays):
            return
        rows = len(arrays[0])
        if self.batches(signature) and any(len(array) != rows for array in arrays):
            raise invalid("Batching session Run() input tensors must have equal 0th-dimension size")
        if rows > parameters.max_batch_size:
            raise invalid(f"Task size {rows} is larger than maximum input batch size {parameters.max_batch_size}")

    def run_batched(self, signature: Signature, calls: Sequence[Sequence[Array]], padding: int) -> list[Array]:
        """All outputs in the signature's order, one row for each row of the inputs of `calls`, in order.

        `padding` copies of the first row run behind them, and are cut off. Raises RequestError, also where another
        call's rows are at fault, and where the outputs are not one row for each.
        """
        outputs = self._prepared(signature, tuple(signature.outputs)).run(calls, padding)
        rows = sum(len(arrays[0]) for arrays in calls)
        for output in outputs:
            if not output.ndim or len(output) != rows + padding:
                raise RequestError(
                    Code.FAILED_PRECONDITION,
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                    "input tensors",
                )
        return [output[:rows] for output in outputs] if padding else outputs

    def run_alone(self, signature: Signature, arrays: Sequence[Array], outputs: tuple[str, ...]) -> list[Array]:
        """Outputs in the order asked, for inputs in the signature's order, run by themselves; raises RequestError."""
        return self._prepared(signature, outputs).run([arrays])

    def require_rows(self, signature: Signature, rows: int, outputs: Sequence[Array]) -> None:
        """Batch the signature no longer where `outputs`, of so many rows and run alone, are not one row for each."""
        for name, output in zip(signature.outputs, outputs, strict=True):
            if output.ndim == 0 or len(output) != rows:
                if self.batches(signature):
                    found = f"has {len(output)} rows where the input has {rows}" if output.ndim else "is a scalar"
                    self._leave_unbatched(signature, f"output {name} {found}")
                return

    def _prepared(self, signature: Signature, outputs: tuple[str, ...]) -> PreparedRun:
        return self._runs.get((signature.name, outputs)) or self._prepare(signature, outputs)

    def _prepare(self, signature: Signature, outputs: tuple[str, ...]) -> PreparedRun:
        feeds = [spec.tensor for spec in signature.inputs.values()]
        run = self._session.prepare(feeds, [signature.outputs[output].tensor for output in outputs])
        with self._lock:
            return self._runs.setdefault((signature.name, outputs), run)

    def close(self) -> None:
        """Free the session; no call may be under way."""
        for run in self._runs.values():
            run.close()
        self._runs.clear()
        self._session.close()
        give_memory_back()


def why_unbatched(signature: Signature) -> str | None:
    """Why requests of this signature cannot share a batch; None where nothing in its shapes forbids it."""
    if not signature.inputs:
        return "it has no inputs"
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs.values():
            if not spec.tensor:
                return f"{kind} {spec.name} is sparse or ragged"
            if spec.shape == ():
                return f"{kind} {spec.name} is a scalar"
            if spec.shape and spec.shape[0] >= 0:
                return f"{kind} {spec.name} has a fixed first dimension of {spec.shape[0]}"
    return None


def _load(path: Path, options: ServableOptions) -> tuple[GraphSession, Any]:
    from tensorflow.core.protobuf import meta_graph_pb2

    meta_graph = read_meta_graph(path, options.tags)
    config = options.session_config(fuses=meta_graph is None or not is_mostly_dense(meta_graph))
    session, serialized = load_saved_model(path, options.tags, config, with_meta_graph=meta_graph is None)
    definitions = _definitions(meta_graph or meta_graph_pb2.MetaGraphDef.FromString(serialized))
    del meta_graph, serialized
    give_memory_back()
    return session, definitions


def _definitions(meta_graph: Any) -> dict[str, Any]:
    """SignatureDefs by their names, copied: the rest of the MetaGraphDef, which may be large, is not kept."""
    copies = {}
    for key, definition in sorted(meta_graph.signature_def.items()):
        copies[key] = type(definition)()
        copies[key].CopyFrom(definition)
    return copies


def _signatures(definitions: dict[str, Any]) -> dict[str, Signature]:
    return {
        key: Signature(
            name=key,
            method_name=definition.method_name,
            inputs=_specs(definition.inputs),
            outputs=_specs(definition.outputs),
            defaults={name: decode_tensor(proto) for name, proto in definition.defaults.items()},
        )
        for key, definition in definitions.items()
    }


def _specs(infos: Any) -> dict[str, TensorSpec]:
    return {name: _spec(name, infos[name]) for name in sorted(infos)}


def _spec(name: str, info: Any) -> TensorSpec:
    shape = None if info.tensor_shape.unknown_rank else tuple(d.size for d in info.tensor_shape.dim)
    return TensorSpec(name, info.name, info.dtype, shape)
