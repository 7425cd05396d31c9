"""The extras of the package: what each of them installs, and the sentence for one that is missing.

Without extras the package plans, loads, attaches to servers, compares and reports. What trains a model or starts a
server is installed by an extra of pyproject.toml.
"""

from __future__ import annotations

import importlib.util
from typing import Final

from serving.errors import EngineUnavailable

EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "train": ("tensorflow", "keras", "torch", "sklearn", "h5py", "tensorflow_serving", "model_archiver", "ts"),
    "savedmodel": (
        *("tensorflow", "tensorflow_serving", "ml_dtypes", "grpc", "grpc_health"),
        *("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "simdjson"),
    ),
    "torchserve": ("ts", "torch"),
    "docker": ("docker",),
    "kubernetes": ("kubernetes", "websocket"),
}
"""Extra to the modules that our code imports of it. A module in two extras is missed first by the first of them."""

_PROPER_NAMES: Final = {
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "sklearn": "scikit-learn",
    "tensorflow_serving": "tensorflow-serving-api",
    "model_archiver": "torch-model-archiver",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "simdjson": "pysimdjson",
    "ts": "TorchServe",
    "docker": "Docker's SDK",
    "kubernetes": "the Kubernetes client",
    "websocket": "websocket-client",
}


def require(extra: str, who: str, *modules: str) -> None:
    """Raise EngineUnavailable where one of `modules` (default: all of the extra's) is not installed; imports none.

    `who` begins the sentence: what needs the extra.
    """
    if absent := missing(extra, *modules):
        raise EngineUnavailable(sentence(extra, who, absent))


def missing(extra: str, *modules: str) -> list[str]:
    """Which of `modules` (default: all of the extra's) are not installed; imports none."""
    return [name for name in modules or EXTRAS[extra] if importlib.util.find_spec(name) is None]


def sentence(extra: str, who: str, absent: list[str]) -> str:
    """What `who` needs, and the command that installs it."""
    *first, last = [_PROPER_NAMES.get(name, name) for name in absent]
    names = f"{', '.join(first)} and {last}" if first else last
    return f"{who} needs {names}: pip install 'servestorm[{extra}]'."


def explain(error: ModuleNotFoundError, who: str, first: str = "") -> str | None:
    """The sentence for an import that failed; None where no extra would have brought the module.

    Of several extras that would, it names `first` if that is one of them.
    """
    name = (error.name or "").partition(".")[0]
    bringing = [extra for extra, modules in EXTRAS.items() if name in modules]
    extra = first if first in bringing else next(iter(bringing), None)
    return sentence(extra, who, [name]) if extra else None
