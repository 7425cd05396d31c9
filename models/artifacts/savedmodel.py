"""Write a network as a SavedModel, and run what lies on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from models.artifacts.served_network import served_network
from models.artifacts.source import ExportSource
from models.manifest import InputSpec
from models.networks.weights import Weights, for_one_reading
from models.preprocessing import JPEG_MAGIC, PNG_MAGIC, REFUSED, scale_and_shift

IMAGE_SIGNATURE = "serving_default"
TENSOR_SIGNATURE = "tensor"
IMAGE_INPUT = "image_bytes"
TENSOR_INPUT = "images"
OUTPUT = "probabilities"
WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"


class ExportedNetwork(tf.Module):  # type: ignore[misc]
    """Both signatures over one set of weights."""

    def __init__(self, source: ExportSource, weights: Weights) -> None:
        super().__init__(name="network")
        self.spec = spec = source.input
        served = served_network(source, weights)
        self.network, self.served_variables = served.answer, served.variables
        shape = (None, spec.height, spec.width, spec.channels)
        self.image = tf.function(
            self.of_image_bytes, input_signature=[tf.TensorSpec([None], tf.string, name=IMAGE_INPUT)]
        )
        self.tensor = tf.function(self.of_tensor, input_signature=[tf.TensorSpec(shape, tf.float32, name=TENSOR_INPUT)])

    def of_image_bytes(self, image_bytes: Any) -> dict[str, Any]:
        """Encoded JPEG or PNG (batch,) to softmax (batch, classes)."""
        return {OUTPUT: self.network(preprocess(image_bytes, self.spec))}

    def of_tensor(self, images: Any) -> dict[str, Any]:
        """Normalised float32 (batch, height, width, channels) to softmax (batch, classes)."""
        return {OUTPUT: self.network(images)}


def preprocess(image_bytes: Any, spec: InputSpec) -> Any:
    """In the graph, what `models.preprocessing.preprocess` does: (batch,) strings to float32 NHWC, normalised."""
    size = tf.constant([spec.height, spec.width], tf.int32)
    scale, shift = scale_and_shift(spec)

    def pixels(encoded: Any) -> Any:
        # This kernel goes by the bytes' magic and decodes PNG as well, so a batch may mix both without a branch.
        image = tf.io.decode_jpeg(encoded, channels=spec.channels, dct_method="INTEGER_ACCURATE")
        # It casts to float in any case, and returns at once for an image that has the target size already.
        resized = tf.raw_ops.ResizeBilinear(images=image[tf.newaxis], size=size, half_pixel_centers=True)
        return tf.ensure_shape(resized[0], (spec.height, spec.width, spec.channels))

    with tf.control_dependencies([_only_supported(image_bytes)]):
        image_bytes = tf.identity(image_bytes)
    shape = tf.TensorSpec((spec.height, spec.width, spec.channels), tf.float32)
    batch = tf.map_fn(pixels, image_bytes, fn_output_signature=shape)
    return batch * tf.constant(scale) + tf.constant(shift)


def _only_supported(image_bytes: Any) -> Any:
    """Fails with InvalidArgument on anything but JPEG and PNG, as the other side does."""

    def starts_with(magic: bytes) -> Any:
        return tf.equal(tf.strings.substr(image_bytes, 0, len(magic)), tf.constant(magic))

    supported = tf.logical_or(starts_with(PNG_MAGIC), starts_with(JPEG_MAGIC))
    return tf.debugging.Assert(tf.reduce_all(supported), [f"{REFUSED}."])


def write_savedmodel(source: ExportSource, path: Path, warmup_image: bytes, name: str) -> None:
    """Write the SavedModel to `path`, with one warm-up request of the image signature in it."""
    servable = ExportedNetwork(source, for_one_reading(source.read()))
    tf.saved_model.save(
        servable, str(path), signatures={IMAGE_SIGNATURE: servable.image, TENSOR_SIGNATURE: servable.tensor}
    )
    _write_warmup(path / WARMUP_FILE, name, warmup_image)


def _write_warmup(path: Path, name: str, image: bytes) -> None:
    """The request that TensorFlow Serving replays when it loads a version (PredictionLog in a TFRecord)."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = IMAGE_SIGNATURE
    request.inputs[IMAGE_INPUT].CopyFrom(tf.make_tensor_proto([image], dtype=tf.string, shape=[1]))
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(log.SerializeToString())


def predictor(path: Path, signature: str, input_name: str, output: str) -> Callable[[Any], NDArray[np.float64]]:
    """A function from a batch (array of bytes or float32) to the output of a SavedModel on disk, as float64."""
    loaded = tf.saved_model.load(str(path))
    function = loaded.signatures[signature]

    def predict(batch: Any) -> NDArray[np.float64]:
        answer = function(**{input_name: tf.constant(batch)})
        probabilities: NDArray[np.float64] = answer[output].numpy().astype(np.float64)
        return probabilities

    predict.loaded = loaded  # type: ignore[attr-defined]  # signatures hold their model weakly
    return predict


def predict_images(path: Path, images: Sequence[bytes], batch_size: int = 32) -> NDArray[np.float64]:
    """Softmax (n, classes) of encoded images, by a SavedModel that `write_savedmodel` wrote."""
    predict = predictor(path, IMAGE_SIGNATURE, IMAGE_INPUT, OUTPUT)
    batches = [list(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    return np.concatenate([predict(batch) for batch in batches])
