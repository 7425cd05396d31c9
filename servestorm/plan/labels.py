"""What things are called in tables, figures and sentences: the same everywhere."""

from __future__ import annotations

from typing import Literal, Protocol

# `savedmodel` speaks TensorFlow Serving's API and is not it: its numbers must never pass for TensorFlow Serving's
ENGINE_LABELS = {
    "savedmodel": "savedmodel (embedded, not TensorFlow Serving)",
    "torchserve": "TorchServe",
    "tfserving": "TensorFlow Serving",
    "keras": "Keras (on TensorFlow)",
    "torch": "PyTorch",
}
ENGINE_SHORT = {
    "savedmodel": "savedmodel",
    "torchserve": "TorchServe",
    "tfserving": "TensorFlow Serving",
    "keras": "Keras",
    "torch": "PyTorch",
}
SCENARIO_LABELS = {
    "coldstart": "Cold start",
    "steady": "Steady load",
    "bursty": "Bursty load",
    "capacity": "Capacity",
    "scaling": "Scaling",
    "sweep": "Sweep",
    "autoscaling": "Autoscaling",
    "training": "Training",
}
PHASES = {
    "port_bound": "start to port bound",
    "ready": "port bound to ready",
    "first_right_answer": "ready to first right answer",
    "steady": "first right answer to steady answers",
}
"""Cold-start phase by the event that ends it, in order."""
CONTAINER_PHASES = {
    "image_built": "order to image built",
    "image_present": "image looked up",
    "created": "image present to container created",
    "started": "container created to started",
}
"""What a container has before those; without a build, the look-up begins with the order."""
POD_PHASES = {
    "spawned": "order to pod created",
    "scheduled": "pod created to scheduled",
    "initialized": "scheduled to model copied",
    "image_pulled": "model copied to server image there",
    "started": "image there to server started",
    "ready": "server started to ready",
    "first_right_answer": PHASES["first_right_answer"],
    "steady": PHASES["steady"],
}
"""What a pod has instead; Helm's part is in the first."""
_BEFORE_START = ("image_built", "image_present", "created", "spawned")


def phases_of(backend: str) -> dict[str, str]:
    """Every cold-start phase of a backend, in order: the event that ends it, and its label."""
    return {"docker": {**CONTAINER_PHASES, **PHASES}, "kubernetes": POD_PHASES}.get(backend, PHASES)


def phases_from_start(backend: str) -> dict[str, str]:
    """Those that add up to the cold start: of a container from its start on, of a pod from its creation on."""
    return {phase: label for phase, label in phases_of(backend).items() if phase not in _BEFORE_START}


def start_of(backend: str) -> str:
    """Where a cold start begins: 'server start', or 'pod created'."""
    return "pod created" if backend == "kubernetes" else "server start"


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, thousands with commas; '–' where there is no value."""
    if value is None:
        return "–"
    size = abs(value)
    decimals = 0 if size >= 100 or size == 0 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{value:,.{decimals}f}"
    return f"{text} {unit}" if unit else text


def times_text(ratio: float) -> str:
    """A ratio: '1.62', '0.48', '12.3', '0.048'; two decimals as far as they say something."""
    decimals = 0 if ratio >= 100 else 1 if ratio >= 10 else 2 if ratio >= 0.1 else 3
    return f"{ratio:,.{decimals}f}"


class Figure(Protocol):
    """A figure of one engine, of the results or of a results.json."""

    @property
    def value(self) -> float | None:
        """The figure."""

    @property
    def sd(self) -> float | None:
        """Its standard deviation between runs."""

    @property
    def value_from(self) -> Literal["runs", "samples", "largest"] | None:
        """What it is of: a mean over runs, all samples together, or the largest of the runs."""


SAMPLES_MARK = "(samples)"
"""Beside what is of samples, and not over runs."""


def figure_text(figure: Figure) -> str:
    """'12.3 ± 0.4', '12.3' of one run, or '12.3 (samples)' where no run has answers enough for a percentile."""
    text = spread_text(figure.value, figure.sd)
    return f"{text} {SAMPLES_MARK}" if figure.value_from == "samples" else text


def spread(value: float | None, sd: float | None) -> tuple[str, str]:
    """('12.3', '0.4'): both with the value's decimals; the second is '' where runs are too few for a deviation."""
    text = number(value)
    if value is None or sd is None:
        return text, ""
    decimals = len(text.partition(".")[2])
    return text, f"{sd:,.{decimals}f}"


def spread_text(value: float | None, sd: float | None) -> str:
    """'12.3 ± 0.4', or '12.3' alone."""
    return " ± ".join(filter(None, spread(value, sd)))


def p_text(p: float | None) -> str:
    r"""'0.012', '<\u00a00.001', or '–'."""
    if p is None:
        return "–"
    # a no-break space, so that the sign never stands alone at a line's end
    return "<\u00a00.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
