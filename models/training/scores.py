"""How good answers are: accuracy, loss, and the report by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.training.learner import Labels, Pixels
from models.training.record import Classification, ClassScore


def top_k(probabilities: Pixels, labels: Labels, k: int) -> float:
    """Share of rows of (n, classes) whose label is among the k most probable classes."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float(np.mean((best == labels[:, None]).any(axis=1)))


def cross_entropy(probabilities: Pixels, labels: Labels) -> float:
    """Mean negative log likelihood (nats) of the labels under (n, classes) probabilities."""
    likelihood = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(likelihood, 1e-12)).mean())


def classification(probabilities: Pixels, labels: Labels, names: Sequence[str]) -> Classification:
    """The report of (n, classes) probabilities for n labels, by scikit-learn; what cannot be divided counts as 0."""
    from sklearn import metrics

    called, every = probabilities.argmax(axis=1), range(len(names))
    score = metrics.precision_recall_fscore_support
    by_class = score(labels, called, labels=every, zero_division=0.0)
    weighted = score(labels, called, labels=every, average="weighted", zero_division=0.0)
    rows = zip(names, *(column.tolist() for column in by_class), strict=True)
    return Classification(
        classes=[
            ClassScore(name=name, precision=precision, recall=recall, f1=f1, support=support)
            for name, precision, recall, f1, support in rows
        ],
        precision=float(weighted[0]),
        recall=float(weighted[1]),
        f1=float(weighted[2]),
        confusion=metrics.confusion_matrix(labels, called, labels=every).tolist(),
    )
