"""The graph surgery that puts TensorFlow's batching kernel before a signature.

`BatchFunction` is the kernel behind `tf.nondifferentiable_batch_function`: it runs the scheduler that TensorFlow
Serving's batching session uses. A signature exported by TensorFlow 2 is one call of one function, so the kernel calls
that function on whole batches, with no second copy of the variables. A graph without functions, which TensorFlow 1
exports, has nothing to call: there the kernel calls back into the session, which runs the signature on the whole batch,
as TensorFlow Serving's batching session does.

Each batch also returns when it began, once for each row. Nothing else shows how long a request waited in the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from serving.savedmodel_server.versions.batching import BatchingParameters
from serving.savedmodel_server.versions.signatures import DT_DOUBLE, DT_INT32, Array, Signature

RunWhole = Callable[..., Sequence[Array]]
"""Runs a signature past the kernel: its inputs in order to its outputs in order."""

_BEGAN = "batch_began"


class BatchedSignature(NamedTuple):
    """Tensors behind the batching kernel."""

    outputs: Mapping[str, str]
    """Tensors by the names of the signature's outputs."""
    began: str
    """float64, [rows]: when the batch of each row began to run, in seconds of Unix time."""


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


class _BatchedCall(NamedTuple):
    """What the kernel is to call."""

    function: Any
    """Takes the batched tensors and then the captured ones; its last output is when it began."""
    batched: list[Any]
    captured: list[Any]
    types: list[Any]
    """Of its outputs but the last."""
    places: Mapping[str, int]
    """Of the signature's outputs among its outputs."""


def add_batching(
    graph: Any, meta_graph: Any, signature: Signature, run_whole: RunWhole, parameters: BatchingParameters, name: str
) -> BatchedSignature:
    """Add a BatchFunction before `signature` in `graph`, which was loaded from `meta_graph`.

    `why_unbatched` must be None. `name` identifies the queue in the process. `run_whole` serves a graph without
    functions.
    """
    import tensorflow as tf

    with graph.as_default():
        call = _function_call(graph, meta_graph, signature) or _session_call(graph, signature, run_whole)
        outputs = tf.raw_ops.BatchFunction(
            in_tensors=call.batched,
            captured_tensors=call.captured,
            f=call.function,
            Tout=[*call.types, tf.float64],
            num_batch_threads=parameters.num_batch_threads,
            max_batch_size=parameters.max_batch_size,
            batch_timeout_micros=parameters.batch_timeout_micros,
            max_enqueued_batches=parameters.max_enqueued_batches,
            allowed_batch_sizes=_allowed_batch_sizes(parameters),
            enable_large_batch_splitting=parameters.enable_large_batch_splitting,
            shared_name=name,
            batching_queue=name,
        )
    return BatchedSignature({alias: outputs[place].name for alias, place in call.places.items()}, outputs[-1].name)


def _allowed_batch_sizes(parameters: BatchingParameters) -> list[int]:
    """The kernel knows no other limit of a batch than the last allowed size: all sizes are, where none is named."""
    if parameters.allowed_batch_sizes or parameters.most_rows_run == parameters.max_batch_size:
        return list(parameters.allowed_batch_sizes)
    return list(range(1, parameters.most_rows_run + 1))


def _function_call(graph: Any, meta_graph: Any, signature: Signature) -> _BatchedCall | None:
    """The one function that the signature calls; None where it is not one call of all its inputs."""
    results = {name: _through_identity(graph.get_tensor_by_name(s.tensor)) for name, s in signature.outputs.items()}
    ops = {result.op for result in results.values()}
    op = ops.pop()
    if ops or op.type not in ("StatefulPartitionedCall", "PartitionedCall"):
        return None
    feeds = {graph.get_tensor_by_name(spec.tensor).ref() for spec in signature.inputs.values()}
    inputs, count = list(op.inputs), len(feeds)
    if {tensor.ref() for tensor in inputs[:count]} != feeds or any(t.ref() in feeds for t in inputs[count:]):
        return None
    return _BatchedCall(
        function=_add_timed(meta_graph, op.get_attr("f")),
        batched=inputs[:count],
        captured=inputs[count:],
        types=[tensor.dtype for tensor in op.outputs],
        places={name: result.value_index for name, result in results.items()},
    )


def _through_identity(tensor: Any) -> Any:
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _add_timed(meta_graph: Any, function: Any) -> Any:
    """Add the timed copy of a function (a NameAttrList) to the default graph; its NameAttrList."""
    import tensorflow as tf
    from tensorflow.core.framework import attr_value_pb2

    definitions = meta_graph.graph_def.library.function
    timed = _timed(next(one for one in definitions if one.signature.name == function.name))
    addition = tf.compat.v1.GraphDef(versions=meta_graph.graph_def.versions)
    addition.library.function.append(timed)
    tf.import_graph_def(addition, name="")
    return attr_value_pb2.NameAttrList(name=timed.signature.name, attr=function.attr)


def _timed(function: Any) -> Any:
    """A copy of a FunctionDef that also returns when it began, once for each row of its first argument."""
    timed = type(function)()
    timed.CopyFrom(function)
    timed.signature.name += f"_{_BEGAN}"
    timed.signature.is_stateful = True
    rows = timed.signature.input_arg[0]
    del timed.node_def[:]
    _add_node(timed, "time", "Timestamp")  # the first node, so that it is the first to run
    timed.node_def.extend(function.node_def)
    _add_node(timed, "shape", "Shape", rows.name, T=rows.type, out_type=DT_INT32)
    _add_node(timed, "zero", "Const", dtype=DT_INT32, value=0)
    _add_node(timed, "one", "Const", dtype=DT_INT32, value=1)
    slice_inputs = (f"{_BEGAN}/shape:output:0", f"{_BEGAN}/zero:output:0", f"{_BEGAN}/one:output:0")
    _add_node(timed, "rows", "Slice", *slice_inputs, T=DT_INT32, Index=DT_INT32)
    fill_inputs = (f"{_BEGAN}/rows:output:0", f"{_BEGAN}/time:ts:0")
    _add_node(timed, "filled", "Fill", *fill_inputs, T=DT_DOUBLE, index_type=DT_INT32)
    timed.signature.output_arg.add(name=_BEGAN, type=DT_DOUBLE)
    timed.ret[_BEGAN] = f"{_BEGAN}/filled:output:0"
    return timed


def _add_node(function: Any, name: str, op: str, *inputs: str, value: int | None = None, **types: int) -> None:
    """Append a node with these inputs and types; `value` is that of a constant vector of one int32."""
    node = function.node_def.add(name=f"{_BEGAN}/{name}", op=op, input=inputs)
    for attribute, dtype in types.items():
        node.attr[attribute].type = dtype
    if value is not None:
        tensor = node.attr["value"].tensor
        tensor.dtype = DT_INT32
        tensor.tensor_shape.dim.add(size=1)
        tensor.int_val.append(value)


def _session_call(graph: Any, signature: Signature, run_whole: RunWhole) -> _BatchedCall:
    """A function that runs the signature in its own session."""
    import tensorflow as tf

    feeds = [graph.get_tensor_by_name(spec.tensor) for spec in signature.inputs.values()]
    types = [tf.as_dtype(spec.dtype) for spec in signature.outputs.values()]

    def run_batch(*rows: Any) -> list[Any]:
        began = tf.fill(tf.shape(rows[0])[:1], tf.timestamp())
        return [*tf.numpy_function(run_whole, rows, types), began]

    specs = [tf.TensorSpec(None, feed.dtype) for feed in feeds]
    function = tf.function(run_batch, autograph=False).get_concrete_function(*specs)
    return _BatchedCall(
        function=function,
        batched=feeds,
        captured=list(function.captured_inputs),
        types=types,
        places={name: place for place, name in enumerate(signature.outputs)},
    )
