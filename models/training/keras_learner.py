"""Training in Keras: its own fit, one epoch at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from models.atomic import require_space
from models.manifest import InputSpec
from models.training import keras_cnn
from models.training.learner import Framework

EVALUATION_BATCH = 256
HDF5_OVERHEAD_BYTES = 1 << 20


class KerasLearner:
    """The study's network, compiled with Adam and cross-entropy. Fulfils `models.training.learner.Learner`."""

    framework: Framework = "keras"
    weights_name = "keras.weights.h5"

    def __init__(self, spec: InputSpec, classes: int, seed: int, batch_size: int) -> None:
        keras.utils.set_random_seed(seed)
        self.network = keras_cnn.build(spec.height, spec.width, spec.channels, classes)
        self.network.compile(optimizer=keras.optimizers.Adam(), loss="sparse_categorical_crossentropy")
        self.batch_size = batch_size

    def epoch(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        learning_rate: float,
        tick: Callable[[float], None],
    ) -> float:
        """Learn from each image once, shuffled; returns the mean loss."""
        batches = -(-len(images) // self.batch_size)
        report_batch = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: tick((batch + 1) / batches)
        )
        self.network.optimizer.learning_rate = learning_rate
        done = self.network.fit(
            images, labels, batch_size=self.batch_size, epochs=1, shuffle=True, verbose=0, callbacks=[report_batch]
        )
        return float(done.history["loss"][0])

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax (n, classes), with the running statistics."""
        probabilities: NDArray[np.float32] = self.network.predict(images, batch_size=EVALUATION_BATCH, verbose=0)
        return probabilities

    def parameters(self) -> int:
        """How many values the network holds."""
        return int(self.network.count_params())

    def save(self, path: Path) -> None:
        """Write the weights in Keras's HDF5 format."""
        require_space(path.parent, 4 * self.parameters() + HDF5_OVERHEAD_BYTES)
        self.network.save_weights(path)
