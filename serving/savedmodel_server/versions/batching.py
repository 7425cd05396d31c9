"""Batching parameters, and the graph surgery that puts TensorFlow's batching kernel before a signature.

`BatchFunction` is the kernel behind `tf.nondifferentiable_batch_function`: it runs the scheduler that TensorFlow
Serving's batching session uses. A signature exported by TensorFlow 2 is one call of one function, so the kernel can
call that same function on whole batches, with no second copy of the variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.savedmodel_server.errors import FlagError
from serving.savedmodel_server.textproto import message_class, read_text_proto
from serving.savedmodel_server.versions.signatures import Signature


@dataclass(frozen=True)
class BatchingParameters:
    """TensorFlow Serving's BatchingParameters with its defaults; sizes are rows."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 4
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0

    @property
    def most_rows(self) -> int:
        """Rows that may be queued or running at a time; more are refused as UNAVAILABLE."""
        return self.max_batch_size * (self.max_enqueued_batches + self.num_batch_threads)

    def check(self, path: Path | None) -> None:
        """Raise FlagError where the kernel would refuse the values."""
        where = f"--batching_parameters_file={path}"
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise FlagError(f"{where}: {name} must be at least 1.")
        if self.batch_timeout_micros < 0:
            raise FlagError(f"{where}: batch_timeout_micros must not be negative.")
        sizes = self.allowed_batch_sizes
        last = self.max_execution_batch_size or self.max_batch_size
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != last):
            raise FlagError(f"{where}: allowed_batch_sizes must increase and end with {last}.")
        if self.max_execution_batch_size and not self.enable_large_batch_splitting:
            raise FlagError(f"{where}: max_execution_batch_size needs enable_large_batch_splitting.")


def read_batching_parameters(path: Path | None, threads: int) -> BatchingParameters:
    """From a BatchingParameters text proto; `threads` is the default of num_batch_threads. Raises FlagError."""
    if path is None:
        return BatchingParameters(num_batch_threads=threads)
    proto = read_text_proto(path, message_class("BatchingParameters")(), "batching_parameters_file")
    if proto.pad_variable_length_inputs:
        raise FlagError(
            f"--batching_parameters_file={path}: pad_variable_length_inputs is not supported: "
            "send rows of one shape, or pad them in the model."
        )
    given: dict[str, Any] = {
        field.name: value.value for field, value in proto.ListFields() if field.message_type is not None
    }
    parameters = BatchingParameters(
        **{"num_batch_threads": threads, **given}, allowed_batch_sizes=tuple(proto.allowed_batch_sizes)
    )
    parameters.check(path)
    return parameters


def add_batching(graph: Any, signature: Signature, parameters: BatchingParameters, name: str) -> Mapping[str, str]:
    """Add a BatchFunction before `signature` in `graph`; maps its output names to tensors of the batched path.

    An empty mapping means that the signature cannot be batched: it is not one function call of all its inputs, or
    an input or output is a scalar.
    """
    import tensorflow as tf

    call = _calling_op(graph, signature)
    if call is None:
        return {}
    feeds = [graph.get_tensor_by_name(spec.tensor) for spec in signature.inputs.values()]
    fed = {feed.ref() for feed in feeds}
    arguments = [tensor for tensor in call.inputs if tensor.ref() in fed]
    captured = [tensor for tensor in call.inputs if tensor.ref() not in fed]
    in_order = [*arguments, *captured] == list(call.inputs) or all(
        a is b for a, b in zip([*arguments, *captured], call.inputs, strict=True)
    )
    if len(arguments) != len(feeds) or not in_order:
        return {}
    splitting = parameters.enable_large_batch_splitting
    with graph.as_default():
        outputs = tf.raw_ops.BatchFunction(
            in_tensors=arguments,
            captured_tensors=captured,
            f=call.get_attr("f"),
            Tout=[tensor.dtype for tensor in call.outputs],
            num_batch_threads=parameters.num_batch_threads,
            max_batch_size=_execution_size(parameters),
            batch_timeout_micros=parameters.batch_timeout_micros,
            max_enqueued_batches=parameters.max_enqueued_batches,
            allowed_batch_sizes=list(parameters.allowed_batch_sizes),
            enable_large_batch_splitting=splitting,
            shared_name=name,
            batching_queue=name,
        )
    return {alias: outputs[_output_index(graph, spec.tensor)].name for alias, spec in signature.outputs.items()}


def _execution_size(parameters: BatchingParameters) -> int:
    return parameters.max_execution_batch_size or parameters.max_batch_size


def _calling_op(graph: Any, signature: Signature) -> Any | None:
    """The one PartitionedCall that computes every output, where inputs and outputs have rows."""
    if not signature.inputs or any(not spec.shape for spec in signature.inputs.values()):
        return None
    if any(spec.shape == () for spec in signature.outputs.values()):
        return None
    calls = {_through_identity(graph.get_tensor_by_name(spec.tensor)).op for spec in signature.outputs.values()}
    if len(calls) != 1:
        return None
    call = calls.pop()
    return call if call.type in ("StatefulPartitionedCall", "PartitionedCall") else None


def _through_identity(tensor: Any) -> Any:
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _output_index(graph: Any, tensor_name: str) -> int:
    return int(_through_identity(graph.get_tensor_by_name(tensor_name)).value_index)
