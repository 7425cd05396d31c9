"""The numbers behind the report's figures that no row of the results holds, by group of runs and engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from servestorm.analysis.cost import Cost, FleetCost
from servestorm.analysis.latency_split import Parts


@dataclass(frozen=True)
class Series:
    """One engine's answers over time: one value a bin, null where a bin has too few answers in slices that count."""

    median_ms: list[float | None]
    """Milliseconds per image."""
    slowest_ms: list[float | None]


@dataclass(frozen=True)
class OverTime:
    """Latency over time, all counted runs of a group together."""

    bin_s: float
    """Width of a bin."""
    t_s: list[float]
    """Where each bin begins, from the first request after the warm-up; of loads in turns on the time of their measured
    slices put end to end."""
    offered_per_s: list[float]
    """Requests a second, mean over runs."""
    engines: dict[str, Series]


@dataclass(frozen=True)
class Law:
    """Throughput by replicas, and the Universal Scalability Law fitted to it where there are enough counts."""

    points: list[tuple[int, float]]
    """[replicas, images/s] of every run."""
    lambda_: Annotated[float | None, Field(alias="lambda")]
    """Images/s of one replica."""
    sigma: float | None
    """Contention."""
    kappa: float | None
    """Coherency."""
    r2: float | None
    """Share of the variance that the law explains."""
    peak_replicas: float | None
    """Where throughput is largest; null where it never falls."""
    curve: list[tuple[float, float]]
    """[replicas, images/s] of the law."""
    means: list[tuple[int, float]] = field(default_factory=list)
    """[replicas, images/s] of the rows: means over runs."""
    linear: list[tuple[int, float]] = field(default_factory=list)
    """[replicas, images/s] if throughput grew in proportion from the first of the means on."""


@dataclass(frozen=True)
class Setting:
    """One setting of a sweep, means over its VALID loads that are not DISTURBED, or over those that are."""

    label: str
    images_per_s: float | None
    p99_ms: float | None
    """Of a request."""
    front: bool
    """No other setting of the engine is at least as good in both and better in one."""
    disturbed: bool = False
    """All its VALID loads are DISTURBED: it is shown, and never on the front."""


@dataclass(frozen=True)
class Followed:
    """How one engine's replicas followed the load, all counted runs together."""

    tail_ms: list[float | None]
    """Of a request, the percentile that `tail` names, one value a bin; null where a bin has too few answers."""
    slowest_ms: list[float | None]
    ready: list[tuple[float, float]]
    """[second, ready replicas from then on, mean over runs]."""
    existing: list[tuple[float, float]]
    """[second, replicas that exist from then on, mean over runs]."""


@dataclass(frozen=True)
class OverScaling:
    """A group of runs under an autoscaler, over time."""

    bin_s: float
    """Width of a bin."""
    t_s: list[float]
    """Where each bin of the load begins, from the begin of the measured load."""
    offered_per_s: list[float]
    """Requests a second, mean over runs."""
    bursts: list[tuple[float, float]]
    """[onset, end] in seconds."""
    watched_s: float
    """Until when replicas were watched, the shortest of the runs."""
    tail: str
    """The largest percentile that most bins have answers enough for, such as p95."""
    engines: dict[str, Followed]


@dataclass(frozen=True)
class ClassFigure:
    """How well one class of the held-out images was recognised, means over runs."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """Images of the class in one run."""


@dataclass(frozen=True)
class SampleFigure:
    """One held-out image with what a trained network says of it."""

    label: str
    answer: str
    probability: float
    right: bool
    png: str
    """The image, base64."""


@dataclass(frozen=True)
class TrainingCost:
    """Of one training on one kind of machine, every vCPU of which is as fast as a core of the study."""

    instance: str
    provider: str
    region: str
    usd: float
    """Its hours by the price, and by the study's cores a vCPU of the machine."""
    dated: str
    """ISO 8601 day of the price."""
    source: str


@dataclass(frozen=True)
class Learning:
    """One framework's counted trainings of a group. Lists by epoch are means over runs; null is what is unknown."""

    height: int
    """Of the network's input, pixels."""
    width: int
    training_images: int
    held_out_images: int
    parameters: int
    """Values of the network, running statistics included."""
    training_top1_percent: list[float | None]
    training_top5_percent: list[float | None]
    training_loss: list[float | None]
    top1_percent: list[float | None]
    """Of held-out images, as are `top5_percent` and `loss`."""
    top5_percent: list[float | None]
    loss: list[float | None]
    epoch_s: list[list[float]]
    """Seconds of each epoch's learning, by run."""
    cpu_percent: list[list[float | None]]
    """Share of the cores, by run, in twentieths of its time."""
    rss_mib: list[list[float | None]]
    """Resident memory at the end of each twentieth, by run."""
    read_mib_per_s: list[list[float | None]]
    """From disk, by run, in twentieths of its time."""
    written_mib_per_s: list[list[float | None]]
    """To disk, by run, in twentieths of its time."""
    labels: list[str]
    """Of the classes."""
    confusion: list[list[int]]
    """[true class][class that came first]: held-out images of all runs together."""
    confusion_percent: list[list[float]]
    """The same, of the images of each true class."""
    hardest: list[int]
    """Places of the classes, those with the least recall first."""
    classes: list[ClassFigure]
    samples: list[SampleFigure]
    """Of the first run, right ones first."""
    costs: list[TrainingCost]


@dataclass(frozen=True)
class DataParallel:
    """How many times as fast a framework's training is in several processes as in the plan's fewest."""

    processes: int
    fewest: int
    speedup: float
    """Images learnt from in a second, divided by those with the fewest processes."""
    speedup_ci: tuple[float, float] | None
    """95 % interval over repetitions."""
    efficiency_percent: float
    """Speedup by the speedup that as many times the processes would give without any loss."""
    efficiency_percent_ci: tuple[float, float] | None


@dataclass(frozen=True)
class ServedAccuracy:
    """How well an engine recognised images under load: every answer was held against the export's."""

    model: str
    engine: str
    answers: int
    """That were checked, in all loads of the study after their warm-up."""
    wrong: int
    """Of these, those that were not the export's."""
    top1_percent: float
    """The export's accuracy on held-out images, times the share of answers that were the export's."""
    top1_percent_ci: tuple[float, float]
    """95 % interval, from the number of held-out images (Wilson)."""
    images: int
    """Held-out images that the export was asked."""


@dataclass(frozen=True)
class Figures:
    """What the figures show and no row holds, by group of runs and engine."""

    over_time: dict[str, OverTime] = field(default_factory=dict)
    spectrum: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    """[share of the answers, milliseconds per image that it took at most]: the mean over the runs that have so many
    answers, as in the rows, whose percentiles are among the shares."""
    scaling_law: dict[str, dict[str, Law]] = field(default_factory=dict)
    sweep: dict[str, dict[str, list[Setting]]] = field(default_factory=dict)
    capacity_per_s: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """The capacity of the row in requests/s, the unit of the probes."""
    cost: dict[str, dict[str, list[Cost]]] = field(default_factory=dict)
    """Of a million images at the capacity found."""
    split: dict[str, dict[str, Parts]] = field(default_factory=dict)
    """Where the time of a mean request goes."""
    autoscaling: dict[str, OverScaling] = field(default_factory=dict)
    fleet_cost: dict[str, dict[str, list[FleetCost]]] = field(default_factory=dict)
    """Of the replicas under an autoscaler, by machine."""
    training: dict[str, dict[str, Learning]] = field(default_factory=dict)
    data_parallel: dict[str, dict[str, DataParallel]] = field(default_factory=dict)
    """Of trainings in more processes than the plan's fewest."""
    accuracy: list[ServedAccuracy] = field(default_factory=list)
    """Of every model whose accuracy is known, by engine."""
