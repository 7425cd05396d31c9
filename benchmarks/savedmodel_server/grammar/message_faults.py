"""What can be wrong with a gRPC request that can still be read.

No fault makes a message ask a server for much memory: a tensor whose last value is to be repeated stays small, or has
so many elements that no server can mean to make it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tensorflow_serving.apis import inference_pb2

from benchmarks.savedmodel_server.grammar.tensors import FIELDS, fill
from benchmarks.savedmodel_server.grammar.zoo_signatures import Input

Fault = Callable[[Any, random.Random], None]


def odd_model(message: Any, rng: random.Random) -> None:
    """Another model, version, label or signature."""
    spec = message.model_spec
    kind = rng.randrange(5)
    if kind == 0:
        spec.name = rng.choice(["", "nope", "half_plus_two/1", "\u00e9", "ZOO"])
    elif kind == 1:
        spec.version.value = rng.choice([0, 3, -1, 2**63 - 1])
    elif kind == 2:
        spec.version_label = rng.choice(["nope", "\u00e9", "Stable", ""])
    elif kind == 3:
        spec.signature_name = rng.choice(["nope", "SERVING_DEFAULT", "classify_x_to_y", "echo_int8", " "])
    else:
        message.ClearField("model_spec")


def some_tensor(message: Any, rng: random.Random) -> Any:
    """One of the inputs, or a new one where there is none."""
    return message.inputs[rng.choice(sorted(message.inputs) or ["x"])]


def odd_dtype(message: Any, rng: random.Random) -> None:
    """Another type, with the values of the former."""
    some_tensor(message, rng).dtype = rng.choice(
        [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 14, 17, 19, 20, 21, 22, 23, 101, 107, 130]
    )


def other_values(message: Any, rng: random.Random) -> None:
    """A whole tensor of another type."""
    tensor = some_tensor(message, rng)
    tensor.Clear()
    dtype = rng.choice([name for name in FIELDS if not name.startswith("complex") and name != "float16"])
    fill(tensor, Input(dtype), (rng.randint(1, 3),), rng)


def other_shape(message: Any, rng: random.Random) -> None:
    """Another rank or size, the values as they were."""
    tensor = some_tensor(message, rng)
    dims = tensor.tensor_shape.dim
    kind = rng.randrange(4)
    if kind == 0 or not dims:
        dims.add(size=rng.choice([0, 1, 1, 1, 2, 3]))
    elif kind == 1:
        del dims[rng.randrange(len(dims))]
    elif kind == 2:
        rng.choice(dims).size = rng.choice([0, 1, 2, 3, 4, 100])
    else:
        tensor.tensor_shape.unknown_rank = True


def forbidden_shape(message: Any, rng: random.Random) -> None:
    """A negative size, more dimensions than TensorFlow has, or more elements than can be counted."""
    dims = some_tensor(message, rng).tensor_shape.dim
    sizes = rng.choice([[-1], [-(2**63)], [2**62, 2**62], [1] * 254, [1] * 255, [1] * 300, [0, 2**62, 2**62], [-1, 0]])
    for size in sizes:
        dims.add(size=size)


def fewer_or_more(message: Any, rng: random.Random) -> None:
    """Values added, lost, doubled or gone; content cut or longer."""
    tensor = some_tensor(message, rng)
    if tensor.tensor_content:
        content = tensor.tensor_content
        tensor.tensor_content = rng.choice(
            [content[:-1], content + b"\x00", content * 2, b"", content[: len(content) // 2]]
        )
        return
    name = next((name for _, name in FIELDS.values() if len(getattr(tensor, name))), "float_val")
    values = list(getattr(tensor, name)) or [0.5]
    tensor.ClearField(name)
    getattr(tensor, name).extend(rng.choice([values[:-1], [*values, values[0]], values * 2, [], values[:1]]))


def two_encodings(message: Any, rng: random.Random) -> None:
    """Content beside values, or values in a field of another type."""
    tensor = some_tensor(message, rng)
    if rng.random() < 0.5:
        tensor.tensor_content = rng.randbytes(rng.choice([1, 4, 8, 16]))
    else:
        name = rng.choice(["float_val", "int_val", "int64_val", "double_val", "uint32_val"])
        getattr(tensor, name).extend([1] * rng.randint(1, 3))


def other_names(message: Any, rng: random.Random) -> None:
    """An input lost, renamed, or one too many."""
    name = rng.choice(sorted(message.inputs) or ["x"])
    if rng.random() < 0.7:
        message.inputs[rng.choice(["y", "", "X", "x:0", "inputs"])].CopyFrom(message.inputs[name])
    if rng.random() < 0.7:
        del message.inputs[name]


def odd_filter(message: Any, rng: random.Random) -> None:
    """Outputs that are not there, or asked for twice."""
    message.output_filter.extend(rng.choice([["nope"], ["y", "y"], [""], ["sum", "sum"], ["y:0"], ["y", "nope"]]))


def odd_int_values(message: Any, rng: random.Random) -> None:
    """Numbers out of the range of a narrow type."""
    tensor = some_tensor(message, rng)
    tensor.Clear()
    tensor.dtype = rng.choice([4, 5, 6, 10, 17])
    field = tensor.bool_val if tensor.dtype == 10 else tensor.int_val
    field.extend([True] if tensor.dtype == 10 else [rng.choice([300, -129, 70000, -1, 2**31 - 1])])
    tensor.tensor_shape.dim.add(size=1)


FAULTS: list[Fault] = [
    odd_model, odd_dtype, other_values, other_shape, other_shape, forbidden_shape, fewer_or_more, fewer_or_more,
    two_encodings, other_names, odd_filter, odd_int_values,
]  # fmt: skip


def odd_feature(message: Any, rng: random.Random) -> None:
    """A feature of another type, of two values, without any, or under another name."""
    for given in (message.input.example_list, message.input.example_list_with_context):
        for example in list(given.examples)[:1]:
            feature = example.features.feature["x"]
            feature.ClearField("float_list")
            kind = rng.randrange(5)
            if kind == 0:
                feature.int64_list.value.append(1)
            elif kind == 1:
                feature.bytes_list.value.append(b"1")
            elif kind == 2:
                feature.float_list.value.extend([1.0, 2.0])
            elif kind == 3:
                del example.features.feature["x"]


def no_examples(message: Any, rng: random.Random) -> None:
    """An input without examples, or none at all."""
    message.input.Clear()
    if rng.random() < 0.5:
        message.input.example_list.SetInParent()


def odd_task(message: Any, rng: random.Random) -> None:
    """The wrong model, version or signature in one of the parts."""
    if isinstance(message, inference_pb2.MultiInferenceRequest):
        kind = rng.randrange(4)
        if kind == 0:
            message.ClearField("tasks")
        elif kind == 1:
            message.tasks.add().CopyFrom(message.tasks[0])
        elif kind == 2:
            message.tasks[0].method_name = rng.choice(["", "tensorflow/serving/predict", "nope"])
        else:
            odd_model(message.tasks[0], rng)
    else:
        odd_model(message, rng)


EXAMPLE_FAULTS: list[Fault] = [odd_feature, no_examples, odd_task, odd_task]
