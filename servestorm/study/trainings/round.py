"""One round of trainings: the frameworks stand at once and take turns by epochs; or one training alone."""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from models.errors import ModelError
from servestorm.plan.cells import Cell
from servestorm.plan.study_plan import Plan
from servestorm.plan.training import Training, settings_of
from servestorm.rundir import files
from servestorm.rundir.files import now, write_json
from servestorm.study.framework_process import FrameworkProcess
from servestorm.study.gpu_counters import GpuChange
from servestorm.study.machine_counters import MachineChange, MachineReader, MachineWatch
from servestorm.study.outcome import CellOutcome, CellState
from servestorm.study.trainings.process import TrainingOrder, train_in_turns

Amount = TypeVar("Amount", int, float)
_REMEDY = "free memory, or choose fewer images, a smaller batch size or a smaller network"


@dataclass(frozen=True)
class TrainingContext:
    """What every training of a study shares."""

    plan: Plan
    cores: Sequence[int]
    machine: MachineReader
    progress: Callable[[str, float], None]
    """Hears what is done, and which share of the round that is."""

    @property
    def training(self) -> Training:
        """What the plan asks for."""
        assert self.plan.training
        return self.plan.training


def run_training_round(context: TrainingContext, cells: Sequence[Cell], folders: Sequence[Path]) -> list[CellOutcome]:
    """Train what the cells ask for. Each has a folder, which gets training.json, use.json and outcome.json.

    A fault of a training makes all outcomes `failed` with the reason, and the study may go on; an interruption, a full
    disk and our own bugs are written too, and raised on.
    """
    for cell, folder in zip(cells, folders, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / files.CELL, cell.as_dict())
    started_at = now()
    state: CellState = "complete"
    reason: str | None = None
    try:
        _train(context, cells, folders)
    except ModelError as error:
        state, reason = "failed", str(error)
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        reason = str(error) or state
        raise
    finally:
        outcome = CellOutcome(state, reason, started_at, now(), "none")
        for folder in folders:
            write_json(folder / files.OUTCOME, asdict(outcome))
    return [outcome] * len(cells)


def _train(context: TrainingContext, cells: Sequence[Cell], folders: Sequence[Path]) -> None:
    turns = [_Turns(folder) for folder in folders]
    order = random.Random(f"{cells[0].seed} {cells[0].training}")
    with ExitStack() as stack:
        trainings: list[FrameworkProcess] = []
        for cell in cells:  # one after the other: how much memory there is must be seen after the one before
            training = FrameworkProcess(
                f"servestorm-train-{cell.engine}",
                train_in_turns,
                _order(context.training, cell, side_by_side=len(cells) - len(trainings)),
                progress=lambda _what, _share: None,
                remedy=_REMEDY,
            )
            stack.callback(training.stop)
            training.wait_for("ready")
            trainings.append(training)
        for epoch in range(context.training.epochs):
            for place in order.sample(range(len(cells)), len(cells)):
                with turns[place].watched(context):
                    trainings[place].tell("go")
                    trainings[place].wait_for("epoch")
                context.progress("training", (epoch + (place + 1) / len(cells)) / context.training.epochs)
                trainings[place].wait_for("ready")
        for training, turn in zip(trainings, turns, strict=True):
            training.tell("go")
            (left,) = training.wait_for("done")
            write_json(turn.folder / files.TRAINING, left)
            write_json(turn.folder / files.USE, {"watch": asdict(turn.change)})


def _order(training: Training, cell: Cell, side_by_side: int) -> TrainingOrder:
    assert cell.training is not None
    setting = settings_of(training)[cell.training]
    return TrainingOrder(
        framework=next(name for name in training.frameworks if name == cell.engine),
        network=setting.network,
        data=setting.data,
        batch_size=setting.batch_size,
        threads=setting.threads,
        processes=setting.processes,
        epochs=training.epochs,
        learning_rate=training.learning_rate,
        pretrained=training.pretrained,
        compiled=setting.compiled,
        precision=setting.precision,
        device=training.device,
        seed=cell.seed,
        side_by_side=side_by_side,
    )


class _Turns:
    """The turns of one training, and what the machine did in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changes: list[MachineChange] = []

    @contextmanager
    def watched(self, context: TrainingContext) -> Iterator[None]:
        """A turn."""
        watch = MachineWatch(context.cores, machine=context.machine)
        try:
            yield
        except BaseException:
            watch.close()
            raise
        self._changes.append(watch.stop())

    @property
    def change(self) -> MachineChange:
        """What the machine did in all turns together."""
        return together(self._changes)


def together(changes: Sequence[MachineChange]) -> MachineChange:
    """What the machine did in several times, of which there is one at least; unknown where it is in one of them."""
    last = changes[-1]
    return MachineChange(
        elapsed_s=sum(change.elapsed_s for change in changes),
        wall_drift_ms=sum(change.wall_drift_ms for change in changes),
        clocksource=last.clocksource,
        cores=last.cores,
        ours_s=_sum(change.ours_s for change in changes),
        other_s=_sum(change.other_s for change in changes),
        steal_s=_sum(change.steal_s for change in changes),
        swapped_pages=_sum(change.swapped_pages for change in changes),
        throttled_s=_sum(change.throttled_s for change in changes),
        gpus=_gpus([change.gpus for change in changes]),
    )


def _gpus(changes: Sequence[Sequence[GpuChange] | None]) -> tuple[GpuChange, ...] | None:
    """Of each GPU: the energy of all times, mean utilisation, and largest memory at their ends."""
    known = [change for change in changes if change is not None]
    if len(known) < len(changes) or len({len(change) for change in known}) != 1:
        return None
    return tuple(_one_gpu(times) for times in zip(*known, strict=True))


def _one_gpu(times: Sequence[GpuChange]) -> GpuChange:
    used = _sum(one.utilisation_percent for one in times)
    memory = [one.memory_bytes for one in times]
    return GpuChange(
        name=times[0].name,
        energy_j=_sum(one.energy_j for one in times),
        utilisation_percent=None if used is None else used / len(times),
        memory_bytes=None if None in memory else max(size for size in memory if size is not None),
    )


def _sum(values: Iterable[Amount | None]) -> Amount | None:
    """None where one is."""
    known = list(values)
    if any(value is None for value in known):
        return None
    return functools.reduce(operator.add, (value for value in known if value is not None))
