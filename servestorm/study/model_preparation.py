"""The model of a study: taken from its directory, or trained and exported first.

Training runs in a process of its own, so that the study's process stays small and quiet while it measures, and so that
Ctrl-C and a crash end it at once.
"""

from __future__ import annotations

import difflib
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from models.errors import ModelError
from models.manifest import MANIFEST_NAME, ModelDir
from models.quiet_import import import_tensorflow_quietly
from servestorm.plan.study_plan import ModelPlan
from servestorm.study.framework_process import FrameworkProcess, Progress
from serving.extras import require

MODELS = Path("build/models")
WEIGHTS = Path("build/weights")
DEFAULT_NAME = str(ModelPlan.model_fields["name"].default)
TRAINING_KEYS = frozenset(
    {"network", "dataset", "size", "classes", "images", "data_dir", "epochs", "seed", "weights_from"}
)
"""Of the plan's model: how it is made where it is missing."""
TRAINING_SHARE = 0.8
"""Of the whole preparation's time, for the progress bar."""


def model_directory(plan: ModelPlan) -> Path:
    """Where the plan's model lies or goes."""
    return plan.path or MODELS / plan.name


def is_missing(plan: ModelPlan) -> bool:
    """Whether the model must be trained and exported first; a given `path` is never made."""
    return plan.path is None and not (model_directory(plan) / MANIFEST_NAME).is_file()


def refuse_unknown(plan: ModelPlan) -> None:
    """Raise ModelError where the model is missing and nothing in the plan says what to train it on: a slip in a name.

    Only the default name alone asks for a model of our own.
    """
    asked = plan.name == DEFAULT_NAME or not TRAINING_KEYS.isdisjoint(plan.model_fields_set)
    if asked or not is_missing(plan):
        return
    there = sorted(path.parent.name for path in MODELS.glob(f"*/{MANIFEST_NAME}"))
    close = difflib.get_close_matches(plan.name, there, n=1)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else f"there {'is' if len(there) == 1 else 'are'} {', '.join(there) or 'none'}."
    )
    raise ModelError(
        f"model.name: there is no model {plan.name} in {MODELS}, {hint} To train one of this name, add `dataset` to it."
    )


def prepare(plan: ModelPlan, progress: Progress) -> ModelDir:
    """The plan's model directory, made first if missing. `progress` gets (what, share of the whole).

    Of several commands at once, one makes it and the others wait: a model that is replaced while a study measures it
    would be another one.
    """
    if is_missing(plan):
        require("train", f"training model {plan.name}")
        with _alone(plan.name, lambda: progress("waiting for another command that makes the model", 0.0)):
            if is_missing(plan):
                _make_in_child(plan, progress)
    return named_model(plan)


@contextmanager
def _alone(name: str, waits: Callable[[], None]) -> Iterator[None]:
    """No other command makes a model of this name meanwhile; `waits` is called first where one does now."""
    MODELS.mkdir(parents=True, exist_ok=True)
    with (MODELS / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def named_model(plan: ModelPlan) -> ModelDir:
    """The plan's model directory, which is there. Raises ModelError where it holds another model, or none."""
    model = ModelDir(model_directory(plan))
    if model.name != plan.name:
        raise ModelError(
            f"{model.path} holds the model {model.name!r}, the plan says {plan.name!r}: set model.name to {model.name}."
        )
    return model


def make(plan: ModelPlan, progress: Progress) -> None:
    """Train in one framework, carry the weights into both artifacts, prove them equal. Imports both frameworks."""
    from models.artifacts.export import export_model
    from models.datasets.load import load_dataset
    from models.networks.catalogue import network_named
    from models.training.train import train

    side = network_named(plan.network).side
    height, width = map(int, plan.size.split("x")) if plan.size else (side, side)
    dataset = load_dataset(
        plan.dataset,
        data_dir=plan.data_dir,
        seed=plan.seed,
        size=(height, width),
        classes=plan.classes,
        images=plan.images,
    )
    weights = WEIGHTS / plan.name
    train(
        plan.weights_from,
        dataset,
        weights,
        epochs=plan.epochs,
        seed=plan.seed,
        progress=training_only(lambda what, share: progress(what, TRAINING_SHARE * share)),
        network=plan.network,
    )
    export_model(
        plan.name,
        weights,
        dataset,
        out_dir=MODELS,
        weights_from=plan.weights_from,
        progress=lambda what, share: progress(what, TRAINING_SHARE + (1 - TRAINING_SHARE) * share),
    )


def training_only(progress: Progress) -> Progress:
    """Hand on how far the training itself is: decoding before it also runs from 0 to 1, in no time."""
    return lambda what, share: progress(what, share if what.startswith("training") else 0.0)


def _make_in_child(plan: ModelPlan, progress: Progress) -> None:
    remedy = "free memory, or train beforehand with `servestorm train` and `servestorm export`"
    child = FrameworkProcess("servestorm-prepare", _make, plan, progress=progress, remedy=remedy)
    try:
        child.wait_for("done")
    finally:
        child.stop()


def _make(connection: Connection, plan: ModelPlan) -> None:
    import_tensorflow_quietly()
    make(plan, lambda what, share: connection.send(("progress", what, share)))
    connection.send(("done",))
