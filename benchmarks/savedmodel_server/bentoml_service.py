"""BentoML on the SavedModel that MODEL names, with its own adaptive batching."""

import base64
import os

import bentoml


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class Classifier:
    def __init__(self) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.tf = tf
        self.loaded = tf.saved_model.load(os.environ["MODEL"])
        self.run = self.loaded.signatures["serving_default"]

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=32, max_latency_ms=10_000)
    def predict(self, images: list[str]) -> list[list[float]]:
        (found,) = self.run(self.tf.constant([base64.b64decode(image) for image in images])).values()
        return found.numpy().tolist()
