"""Published claims about TensorFlow and PyTorch against the verdicts of a run.

A claim is a ratio, PyTorch over TensorFlow, with the conditions that its document states. A verdict of the run that
speaks to it is turned the same way round. Nothing is claimed to be the same experiment: what differs is listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from servestorm.analysis.figures import Learning
from servestorm.analysis.judgements import Judgement
from servestorm.analysis.results import Results
from servestorm.methods.verdict import Outcome
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.plan.questions import group_name
from servestorm.plan.training import settings_of
from servestorm.rundir.shapes.environment import InputFile

CLAIMS: Final = Path(__file__).with_name("claims.yaml")
TENSORFLOW_SIDES: Final = ("tfserving", "savedmodel", "keras")
"""What serves or trains with TensorFlow, the one that a claim means most likely first."""
PYTORCH_SIDES: Final = ("torchserve", "torch")
ClaimOutcome = Literal["reproduced", "contradicted", "cannot tell here"]
SizeOutcome = Literal["within our interval", "larger than claimed", "smaller than claimed"]


class Claim(BaseModel):
    """One figure of a document for both frameworks, as it is printed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    document: str
    place: str
    what: str
    tensorflow: float = Field(gt=0)
    pytorch: float = Field(gt=0)
    unit: str
    better: Literal["lower", "higher"]
    approximate: bool = False
    metric: str | None
    """scenario.row of the run that speaks to it; None where no run judges it."""
    via: str | None = None
    """Why that row speaks to it, where it is another quantity."""
    dataset: str | None = None
    """The data set on which alone a run speaks to it; None where the claim is not about an accuracy."""
    network: str | None
    images: str | None
    side: int | None
    """Pixels of a square image; None where it is not stated."""
    hardware: str | None
    versions: str | None
    batch: str | None

    @property
    def ratio(self) -> float:
        """PyTorch over TensorFlow."""
        return self.pytorch / self.tensorflow

    @property
    def favours(self) -> Literal["tensorflow", "pytorch"]:
        """The framework that the claim calls better."""
        return "tensorflow" if (self.ratio > 1) == (self.better == "lower") else "pytorch"


class ClaimFile(BaseModel):
    """claims.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    documents: dict[str, str]
    """Authors and title, by the document's short name."""
    claims: list[Claim]


@dataclass(frozen=True)
class ClaimCheck:
    """A claim against one question of a run."""

    claim: Claim
    outcome: ClaimOutcome
    reason: str
    """In one sentence."""
    label: str = ""
    """The question; '' where the run has none."""
    ratio: float | None = None
    """Ours, PyTorch over TensorFlow."""
    interval: tuple[float, float] | None = None
    size: SizeOutcome | None = None
    """Of a claim that is reproduced."""
    differs: tuple[str, ...] = ()
    """What is not as in the document, or is not stated there."""


def read_claims(path: Path = CLAIMS) -> ClaimFile:
    """The claims that come with servestorm."""
    return ClaimFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def check_claims(results: Results, claims: ClaimFile | None = None) -> list[ClaimCheck]:
    """Every claim, once for each question of the run that speaks to it, in the order of the file."""
    return [check for claim in (claims or read_claims()).claims for check in _checks(claim, results)]


def _checks(claim: Claim, results: Results) -> Iterator[ClaimCheck]:
    if claim.metric is None:
        yield ClaimCheck(claim, "cannot tell here", f"No study here judges {claim.what}.")
        return
    speaking = list(_speaking(claim.metric, results))
    if not speaking:
        yield ClaimCheck(claim, "cannot tell here", f"The run has no verdict on {claim.metric} between the frameworks.")
    for judgement in speaking:
        yield _check(claim, judgement, results)


def _speaking(metric: str, results: Results) -> Iterator[Judgement]:
    """Verdicts on the row, in any group of its scenario, of the first TensorFlow side that the run has."""
    scenario, _, row = metric.partition(".")
    side = next((engine for engine in TENSORFLOW_SIDES if engine in results.engines), None)
    other = next((engine for engine in PYTORCH_SIDES if engine in results.engines), None)
    for judgement in results.verdicts:
        group, _, name = judgement.metric.rpartition(".")
        if (group.partition("[")[0], name) == (scenario, row) and {judgement.a, judgement.b} == {side, other}:
            yield judgement


def _check(claim: Claim, judgement: Judgement, results: Results) -> ClaimCheck:
    verdict, turned = judgement.verdict, judgement.a in PYTORCH_SIDES
    ratio, interval = verdict.ratio, verdict.ratio_ci
    if turned and ratio is not None:
        ratio = 1 / ratio
    if turned and interval is not None:
        interval = (1 / interval[1], 1 / interval[0])
    here = _measured_on(judgement, results)
    outcome, reason = _other_images(claim, here) or _outcome(claim, verdict.outcome, judgement, verdict.reason)
    size = _size(claim, interval) if outcome == "reproduced" and interval else None
    return ClaimCheck(
        claim,
        outcome,
        reason,
        judgement.label,
        ratio,
        interval,
        size,
        tuple(_differences(claim, judgement, results, here)),
    )


@dataclass(frozen=True)
class _Here:
    """What a question of the run was measured on."""

    networks: list[str]
    """Each with the size of its images, such as 'cnn at 32x32'."""
    sides: list[tuple[int, int]]
    """(height, width) of the images."""
    dataset: str | None
    """Of a training; None of servers, whose speed does not depend on it."""
    batch: str
    """'batches of 32', or 'requests of 1 image'."""


def _measured_on(judgement: Judgement, results: Results) -> _Here:
    if (training := results.study.plan.training) is not None:
        (setting,) = [one for one in settings_of(training) if group_name("training", one.label) == judgement.group]
        learnt = results.figures.training.get(judgement.group, {})
        sizes = {(own.height, own.width) for own in learnt.values()}
        networks = [f"{setting.network}{_size_text(own)} on {setting.data.label}" for own in list(learnt.values())[:1]]
        return _Here(networks, sorted(sizes), setting.data.dataset, f"batches of {setting.batch_size}")
    models = [manifest for manifest in results.models if manifest]
    networks = sorted({f"{one.architecture or one.name}{_size_text(one.input)}" for one in models})
    images = results.study.variants[0].images_per_request if len(results.study.variants) == 1 else "several"
    sides = [(one.input.height, one.input.width) for one in models if one.input]
    return _Here(networks, sides, None, f"requests of {images} image{'' if images == 1 else 's'}")


def _size_text(spec: InputFile | Learning | None) -> str:
    return f" at {spec.width}x{spec.height}" if spec else ""


def _other_images(claim: Claim, here: _Here) -> tuple[ClaimOutcome, str] | None:
    """Why a claim about certain images is not judged by a network for others; None where it may be."""
    if claim.dataset and here.dataset != claim.dataset:
        there = claim.images or claim.dataset
        return "cannot tell here", f"An accuracy is one of its data: {there} there, and {here.dataset or 'none'} here."
    if claim.side is None or (claim.side, claim.side) in here.sides:
        return None
    sizes = ", ".join(f"{width}x{height}" for height, width in here.sides) or "an unknown size"
    reason = f"The claim is about images of {claim.side}x{claim.side}, and the run's network takes {sizes}."
    return "cannot tell here", reason


def _outcome(claim: Claim, outcome: Outcome, judgement: Judgement, reason: str) -> tuple[ClaimOutcome, str]:
    if judgement.withheld or outcome == "inconclusive":
        return "cannot tell here", reason
    claimed = "TensorFlow" if claim.favours == "tensorflow" else "PyTorch"
    if outcome == "equivalent":
        return "contradicted", f"There {claimed} is better; here there is no difference that matters. {reason}"
    better = judgement.a if outcome == "A" else judgement.b
    ours = "pytorch" if better in PYTORCH_SIDES else "tensorflow"
    if ours == claim.favours:
        return "reproduced", f"{claimed} is better in both. {reason}"
    return "contradicted", f"There {claimed} is better, here the other one. {reason}"


def _size(claim: Claim, interval: tuple[float, float]) -> SizeOutcome:
    """By how much, as a distance from 1 on either side."""
    low, high = interval
    if low <= claim.ratio <= high:
        return "within our interval"
    beyond = low > claim.ratio if claim.ratio > 1 else high < claim.ratio
    return "larger than claimed" if beyond else "smaller than claimed"


def _differences(claim: Claim, judgement: Judgement, results: Results, on: _Here) -> Iterator[str]:
    """What is not as in the document; of a condition that it does not state, what it is here."""
    if claim.via:
        yield claim.via
    if on.dataset is None:
        yield "here a server answers requests; the document times the framework, or does not say"
    here = results.environment
    machine = f"{here.cpu_model or 'a CPU of unknown kind'}, {here.cores_usable or here.cores or 'unknown'} cores"
    yield f"hardware: {claim.hardware or 'not stated'}; here {machine}"
    packages = ("tensorflow", "keras", "torch", "torchserve")
    versions = [f"{name} {here.packages[name]}" for name in packages if name in here.packages]
    yield f"versions: {claim.versions or 'not stated'}; here {', '.join(versions) or 'unknown'}"
    yield f"network and images: {_stated(claim)}; here {', '.join(on.networks) or 'unknown'}"
    yield f"batch: {claim.batch or 'not stated'}; here {on.batch}"
    if on.dataset is None and "tfserving" not in (judgement.a, judgement.b):
        yield f"the TensorFlow side is {ENGINE_SHORT['savedmodel']}, which embeds TensorFlow, not TensorFlow Serving"


def _stated(claim: Claim) -> str:
    known = [part for part in (claim.network, claim.images) if part]
    return " on ".join(known) if known else "not stated"
