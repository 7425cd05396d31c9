"""Training in Keras: its own fit, one epoch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from models.atomic import require_space
from models.networks.network import Network
from models.networks.weights import Weights, feature_layers, from_keras, to_keras
from models.training.learner import Framework, LearnerOrder, Precision, images_at_once

HDF5_OVERHEAD_BYTES = 1 << 20
STEPS_AT_ONCE = 8
"""Training steps between two returns to Python, which cost a small network 3 % of its CPU time if each step returns."""


@contextmanager
def _precision(precision: Precision) -> Iterator[None]:
    """Layers that are made meanwhile compute with it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class KerasLearner:
    """A network, compiled with Adam and cross-entropy. Fulfils `models.training.learner.Learner`."""

    framework: Framework = "keras"
    weights_name = "keras.weights.h5"

    def __init__(self, order: LearnerOrder) -> None:
        keras.utils.set_random_seed(order.seed)
        with _precision(order.options.precision):
            self.network = order.network.keras_network(order.input, order.classes)
        self.frozen = 0
        if order.pretrained is not None:
            self._take_features(order.network, order.pretrained)
        self.network.compile(
            optimizer=keras.optimizers.Adam(),
            loss="sparse_categorical_crossentropy",
            steps_per_execution=STEPS_AT_ONCE,
            jit_compile=order.options.compiled,
        )
        self.batch_size = order.batch_size

    def _take_features(self, network: Network, pretrained: Weights) -> None:
        rows = feature_layers(network, from_keras(network, self.network), pretrained)
        to_keras(network, pretrained, self.network, rows)
        for row in rows:
            layer = self.network.get_layer(row.keras)
            layer.trainable = False
            self.frozen += layer.count_params()

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
            # of the last steps at once, Keras tells the number that they would have had if all were full
            on_train_batch_end=lambda batch, logs: tick(min(1.0, (batch + 1) / batches))
        )
        self.network.optimizer.learning_rate = learning_rate
        done = self.network.fit(
            images, labels, batch_size=self.batch_size, epochs=1, shuffle=True, verbose=0, callbacks=[report_batch]
        )
        return float(done.history["loss"][0])

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax (n, classes), with the running statistics."""
        return keras_answers(self.network, images)

    @property
    def helpers(self) -> Sequence[int]:
        """See Learner: none."""
        return []

    def close(self) -> None:
        """See Learner: nothing is left to end."""

    def parameters(self) -> int:
        """How many values the network holds."""
        return int(self.network.count_params())

    def save(self, path: Path) -> None:
        """Write the weights in Keras's HDF5 format."""
        require_space(path.parent, 4 * self.parameters() + HDF5_OVERHEAD_BYTES)
        self.network.save_weights(path)


def keras_answers(network: keras.Model, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax (n, classes) of normalised images, with the running statistics."""
    together = images_at_once(*images.shape[1:3])
    probabilities: NDArray[np.float32] = network.predict(images, batch_size=together, verbose=0)
    return probabilities
