"""Small SavedModels with known answers, written to a folder that TensorFlow Serving and savedmodel-server take.

    python tests/serving/savedmodel_server/savedmodel_zoo.py OUT

writes OUT/half_plus_two/{1,2}, OUT/zoo/1, OUT/gate/1 and OUT/models.config.
"""

from __future__ import annotations

import sys
from pathlib import Path

ECHO_DTYPES = (
    "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool", "string",
)  # fmt: skip


def write_zoo(out: Path) -> Path:
    """Write every model below `out`; returns `out`."""
    for version in (1, 2):
        save_half_plus(out / "half_plus_two" / str(version), 2.0)
    save_zoo(out / "zoo" / "1")
    save_gate(out / "gate" / "1")
    write_config(out)
    return out


def write_config(out: Path) -> Path:
    """A model_config_file with both versions of half_plus_two, labelled, the zoo and the gate."""
    path = out / "models.config"
    path.write_text(
        f"""model_config_list {{
  config {{
    name: "half_plus_two" base_path: "{out / "half_plus_two"}" model_platform: "tensorflow"
    model_version_policy {{ all {{}} }}
    version_labels {{ key: "stable" value: 1 }}
    version_labels {{ key: "canary" value: 2 }}
  }}
  config {{ name: "zoo" base_path: "{out / "zoo"}" model_platform: "tensorflow" }}
  config {{ name: "gate" base_path: "{out / "gate"}" model_platform: "tensorflow" }}
}}
"""
    )
    return path


def save_half_plus(path: Path, addend: float, *, factor: float = 0.5) -> Path:
    """y = factor * x + addend over float vectors, with classify and regress signatures over tf.Examples."""
    import tensorflow as tf

    module = tf.Module()
    module.factor = tf.Variable(factor)
    module.addend = tf.Variable(addend)

    def line(x):
        return module.factor * x + module.addend

    def from_examples(serialized):
        parsed = tf.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        return line(parsed["x"])

    def predict(x):
        return {"y": line(x)}

    def regress(inputs):
        return {"outputs": from_examples(inputs)}

    def classify(inputs):
        scores = from_examples(inputs)
        return {"scores": scores, "classes": tf.strings.as_string(scores, precision=1)}

    vector = tf.TensorSpec([None], tf.float32, name="x")
    examples = tf.TensorSpec([None], tf.string, name="inputs")
    tf.saved_model.save(
        module,
        str(path),
        signatures={
            "serving_default": tf.function(predict).get_concrete_function(vector),
            "regress_x_to_y": tf.function(regress).get_concrete_function(examples),
            "classify_x_to_y": tf.function(classify).get_concrete_function(examples),
        },
    )
    return path


def save_zoo(path: Path) -> Path:
    """One signature for each shape of input and output that matters."""
    import tensorflow as tf

    def spec(name, dtype, shape=(None,)):
        return tf.TensorSpec(shape, dtype, name=name)

    def named(function, *specs):
        return tf.function(function).get_concrete_function(*specs)

    def raises(x):
        with tf.control_dependencies([tf.debugging.assert_less(x, 100.0, message="x must be below 100")]):
            return {"y": tf.identity(x)}

    def decode(image_bytes):
        def one(data):
            image = tf.io.decode_image(data, channels=3, expand_animations=False)
            return tf.reduce_mean(tf.cast(image, tf.float32))

        return {"mean": tf.map_fn(one, image_bytes, fn_output_signature=tf.float32)}

    def spin(turns):
        x = tf.zeros((64, 64)) + tf.cast(turns[0], tf.float32) * 0.0
        body = lambda i, m: (i + 1, tf.tanh(m @ m + 0.1))  # noqa: E731
        _, x = tf.while_loop(lambda i, m: i < turns[0], body, (tf.constant(0), x))
        return {"y": tf.fill(tf.shape(turns), tf.reduce_mean(x))}

    vector, matrix = spec("x", tf.float32), spec("x", tf.float32, (None, 3))
    signatures = {
        "serving_default": named(lambda x: {"y": tf.reduce_sum(x, 1)}, matrix),
        "two_in_two_out": named(
            lambda a, b: {"sum": a + b, "product": a * b},
            spec("a", tf.float32, (None, 2)),
            spec("b", tf.float32, (None, 2)),
        ),
        "image_like": named(lambda x: {"mean": tf.reduce_mean(x, [1, 2])}, spec("x", tf.float32, (None, 4, 4, 3))),
        "any_rank": named(lambda x: {"y": x + 1.0}, tf.TensorSpec(None, tf.float32, name="x")),
        "scalar": named(lambda x: {"y": x * 2.0}, spec("x", tf.float32, ())),
        "to_bytes": named(lambda x: {"y_bytes": x, "y_text": x}, spec("x", tf.string)),
        "not_finite": named(lambda x: {"y": tf.stack([x / 0.0, -x / 0.0, (x - x) / 0.0], 1)}, vector),
        "uneven": named(lambda x: {"y": x, "z": tf.concat([x, x], 0)}, vector),
        "half": named(lambda x: {"y": tf.cast(x, tf.float16)}, vector),
        "raises": named(raises, vector),
        "image": named(decode, spec("image_bytes", tf.string)),
        "spin": named(spin, spec("turns", tf.int32)),
    }
    for name in ECHO_DTYPES:
        signatures[f"echo_{name}"] = named(lambda x: {"y": tf.identity(x)}, spec("x", tf.as_dtype(name)))
    tf.saved_model.save(tf.Module(), str(path), signatures=signatures)
    return path


def save_gate(path: Path) -> Path:
    """A model whose calls wait, with no timing: `wait` reports its arrival, then waits for one `open`.

    `arrived` waits for one such report. Each answers the number that it was given.
    """
    import tensorflow as tf

    ops = tf.raw_ops

    def queue(name):
        return ops.FIFOQueueV2(component_types=[tf.int32], shapes=[[]], shared_name=name)

    def put(name):
        return ops.QueueEnqueueV2(handle=queue(name), components=[0])

    def take(name):
        return ops.QueueDequeueV2(handle=queue(name), component_types=[tf.int32])

    def wait(x):
        with tf.control_dependencies([put("arrivals")]):
            passed = take("passes")
        with tf.control_dependencies(passed):
            return {"y": tf.identity(x)}

    def arrived(x):
        with tf.control_dependencies(take("arrivals")):
            return {"y": tf.identity(x)}

    def open_(x):
        with tf.control_dependencies([put("passes")]):
            return {"y": tf.identity(x)}

    vector = tf.TensorSpec([None], tf.float32, name="x")
    functions = {"serving_default": wait, "arrived": arrived, "open": open_}
    signatures = {name: tf.function(function).get_concrete_function(vector) for name, function in functions.items()}
    tf.saved_model.save(tf.Module(), str(path), signatures=signatures)
    return path


def save_without_functions(path: Path, *, rows: int | None = None) -> Path:
    """y = x @ [[1], [2]] and the label 'small' or 'large' of each row, exported as TensorFlow 1 does.

    The graph holds a variable, a table and a loop, and its signatures name tensors of it instead of calling a function.
    `rows` fixes the first dimension of the input.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    graph = tf.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        x = v1.placeholder(tf.float32, [rows, 2], name="x")
        weights = v1.get_variable("weights", initializer=tf.constant([[1.0], [2.0]]))
        y = tf.map_fn(lambda row: tf.linalg.matvec(weights, row, transpose_a=True), x)
        keys, values = tf.constant([0, 1], tf.int64), tf.constant(["small", "large"])
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), "?")
        label = table.lookup(tf.cast(y[:, 0] > 10.0, tf.int64))
        session.run(v1.global_variables_initializer())
        saved_model = v1.saved_model
        inputs = {"x": saved_model.build_tensor_info(x)}
        outputs = {"y": saved_model.build_tensor_info(y), "label": saved_model.build_tensor_info(label)}
        signature = saved_model.build_signature_def(inputs, outputs, "tensorflow/serving/predict")
        builder = saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=v1.tables_initializer()
        )
        builder.save()
    return path


if __name__ == "__main__":
    print(write_zoo(Path(sys.argv[1]).resolve()) / "models.config")
