"""The figures of trainings: curves over epochs, use over time, the confusion matrix, and what it would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from models.training.record import Epoch, ResourceUse, StudyTraining, TrainingRecord
from servestorm.analysis.cost import Instance, Prices, load_prices
from servestorm.analysis.figures import ClassFigure, Learning, SampleFigure, TrainingCost
from servestorm.analysis.run import MIB
from servestorm.methods.percentiles import over_runs
from servestorm.rundir.record import RunRecord

PARTS: Final = 20
"""Of a training's time, in which its use is told."""
Parts = list[float | None]


def learning(trainings: Sequence[StudyTraining], record: RunRecord) -> Learning:
    """One framework's trainings of a group; there is one at least. Raises StudyError for a broken price file."""
    records = [training.record for training in trainings]
    labels = records[0].labels
    first, confusion = records[0], _confusion(records)
    classes = [_class(place, name, records) for place, name in enumerate(labels)]
    return Learning(
        height=first.input.height,
        width=first.input.width,
        training_images=first.train_images,
        held_out_images=first.test_images,
        parameters=first.parameters,
        training_top1_percent=_by_epoch(records, lambda epoch: percent(epoch.training_top1)),
        training_top5_percent=_by_epoch(records, lambda epoch: percent(epoch.training_top5)),
        training_loss=_by_epoch(records, lambda epoch: epoch.training_loss),
        top1_percent=_by_epoch(records, lambda epoch: percent(epoch.top1)),
        top5_percent=_by_epoch(records, lambda epoch: percent(epoch.top5)),
        loss=_by_epoch(records, lambda epoch: epoch.loss),
        epoch_s=[[epoch.seconds for epoch in one.epochs] for one in records],
        cpu_percent=[_rates(one.use, "cpu_s", 100 / one.use.cores) if one.use else [] for one in records],
        rss_mib=[_memory(one.use) if one.use else [] for one in records],
        read_mib_per_s=[_rates(one.use, "read_bytes", 1 / MIB) if one.use else [] for one in records],
        written_mib_per_s=[_rates(one.use, "write_bytes", 1 / MIB) if one.use else [] for one in records],
        labels=list(labels),
        confusion=confusion,
        confusion_percent=[_shares(row) for row in confusion],
        hardest=sorted(range(len(labels)), key=lambda place: classes[place].recall),
        classes=classes,
        samples=[
            SampleFigure(one.label, one.answer, one.probability, one.right, one.png) for one in trainings[0].samples
        ],
        costs=_costs(records, len(record.study.cores.engine), load_prices(record.prices_path)),
    )


def percent(share: float | None) -> float | None:
    """100 times a share; None stays None."""
    return None if share is None else 100 * share


def _by_epoch(records: Sequence[TrainingRecord], value: Callable[[Epoch], float | None]) -> list[float | None]:
    return [
        over_runs([value(epoch) for epoch in epochs]).mean for epochs in zip(*(r.epochs for r in records), strict=True)
    ]


def _rates(use: ResourceUse, counter: str, factor: float) -> Parts:
    """Growth of a counter a second in each part of the training's time, times `factor`; between samples it is even."""
    times = np.array([0.0, *(sample.t_s for sample in use.samples)])
    counts = np.array([0.0, *(float(getattr(sample, counter)) for sample in use.samples)])
    if len(times) < 2 or times[-1] <= 0:
        return []
    edges = np.linspace(0, times[-1], PARTS + 1)
    grown = np.diff(np.interp(edges, times, counts)) * (PARTS / times[-1])
    return [float(rate) * factor for rate in grown]


def _memory(use: ResourceUse) -> Parts:
    times = np.array([sample.t_s for sample in use.samples])
    if not len(times) or times[-1] <= 0:
        return []
    ends = np.linspace(0, times[-1], PARTS + 1)[1:]
    sizes = np.interp(ends, times, [sample.rss_bytes / MIB for sample in use.samples])
    return [float(size) for size in sizes]


def _confusion(records: Sequence[TrainingRecord]) -> list[list[int]]:
    """Of all records that have one; empty where none has."""
    matrices = [record.classification.confusion for record in records if record.classification]
    return [[int(n) for n in row] for row in np.sum(matrices, axis=0)] if matrices else []


def _shares(row: Sequence[int]) -> list[float]:
    return [100 * count / max(1, sum(row)) for count in row]


def _class(place: int, name: str, records: Sequence[TrainingRecord]) -> ClassFigure:
    scores = [record.classification.classes[place] for record in records if record.classification]
    means = [float(np.mean([getattr(score, part) for score in scores])) for part in ("precision", "recall", "f1")]
    precision, recall, f1 = means
    return ClassFigure(name, precision, recall, f1, scores[0].support if scores else 0)


def _costs(records: Sequence[TrainingRecord], cores: int, prices: Prices) -> list[TrainingCost]:
    seconds = float(np.mean([record.seconds for record in records]))
    return [
        TrainingCost(
            instance=instance.name,
            provider=instance.provider,
            region=instance.region,
            usd=training_usd(seconds, cores, instance),
            dated=instance.dated.isoformat(),
            source=instance.source,
        )
        for instance in prices.instances
    ]


def training_usd(seconds: float, cores: int, instance: Instance) -> float:
    """What so many seconds of training on so many cores cost on `instance`, each of whose vCPUs is as fast as a core.

    A machine with more vCPUs is paid for by the share that the training fills; on one with fewer it takes so much
    longer. A figure to compare frameworks by, not a bill.
    """
    return seconds / 3600 * instance.usd_per_hour * cores / instance.vcpus
