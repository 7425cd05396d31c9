"""Training: how long it took, what it used, and how well the network learnt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from models.training.record import TrainingRecord
from servestorm.analysis.data_parallel import data_parallel, with_fewest_processes
from servestorm.analysis.figures import Figures
from servestorm.analysis.learning import learning, percent
from servestorm.analysis.metric import Metric, Row
from servestorm.analysis.rows import Rows
from servestorm.analysis.run import MIB, Run, mib
from servestorm.analysis.scenario import GroupOfRuns, Measured, Numbers, ScenarioAnalysis
from servestorm.methods.samples import Samples
from servestorm.plan.cells import Cell
from servestorm.plan.questions import group_name
from servestorm.plan.training import settings_of
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.cell import GpuUse
from servestorm.rundir.shapes.study import PlanFile, StudyFile

_LEARNT: Final = "of the epochs' learning, evaluation left out"
_HELD_OUT: Final = "held-out images after the last epoch"
_WEIGHTED: Final = f"of the {_HELD_OUT}, mean over classes weighted by their numbers of images"
_WHOLE: Final = "by the training's process in learning and evaluation"
ROWS: Final = (
    Row("epoch_s", "time of an epoch", "s", "lower", f"mean seconds {_LEARNT}"),
    Row("total_s", "training time", "s", "lower", f"seconds {_LEARNT}"),
    Row(
        "first_epoch_s",
        "time of the first epoch",
        "s",
        "lower",
        "seconds of the first epoch's learning, which hold what the framework prepares at its first step",
    ),
    Row(
        "later_epoch_s",
        "time of an epoch after the first",
        "s",
        "lower",
        "mean seconds of the later epochs' learning; none of a training of one epoch",
    ),
    Row(
        "images_per_s",
        "images learnt from",
        "images/s",
        "higher",
        f"training images of all epochs by seconds {_LEARNT}",
    ),
    Row(
        "to_top1_s",
        "time to the accuracy asked for",
        "s",
        "lower",
        "seconds of learning until held-out top-1 was first at least `reach_top1_percent` of the plan; none where it "
        "never was",
    ),
    Row("top1_percent", "top-1 accuracy", "%", "higher", f"share of {_HELD_OUT} whose class came first"),
    Row("top5_percent", "top-5 accuracy", "%", "higher", f"share of {_HELD_OUT} whose class was among the first five"),
    Row("loss", "loss", "nats", "lower", f"mean cross-entropy on {_HELD_OUT}"),
    Row(
        "training_top1_percent",
        "top-1 accuracy on training images",
        "%",
        "higher",
        "share of as many training images as are held out, not augmented, whose class came first after the last epoch",
    ),
    Row(
        "training_loss",
        "loss on training images",
        "nats",
        "lower",
        "mean cross-entropy over the last epoch's batches of augmented training images",
    ),
    Row("precision_percent", "precision", "%", "higher", f"right ones of those that are called so, {_WEIGHTED}"),
    Row("recall_percent", "recall", "%", "higher", f"right ones of those that are of a class, {_WEIGHTED}"),
    Row("f1_percent", "F1", "%", "higher", f"harmonic mean of precision and recall, {_WEIGHTED}"),
    Row(
        "cpu_ms_per_image",
        "CPU time of the training",
        "ms per image",
        "lower",
        f"CPU time of the process {_LEARNT}, by training images of all epochs",
    ),
    Row("cpu_percent", "use of the cores", "%", "lower", f"CPU time of the process by seconds {_LEARNT}, and by cores"),
    Row(
        "rss_peak_mib",
        "peak memory of the training",
        "MiB",
        "lower",
        "largest resident memory of the process, images included",
    ),
    Row("disk_read_mib", "read from disk", "MiB", "lower", f"bytes read from a disk {_WHOLE}"),
    Row("disk_reads", "read operations", "calls", "lower", f"calls that read, from disk or cache, {_WHOLE}"),
    Row("disk_written_mib", "written to disk", "MiB", "lower", f"bytes written to a disk {_WHOLE}"),
    Row("disk_writes", "write operations", "calls", "lower", f"calls that wrote, to disk or cache, {_WHOLE}"),
    Row(
        "gpu_j_per_image",
        "energy of the machine's GPUs",
        "J per image",
        "lower",
        "energy of all GPUs of the machine in the training's turns, by training images of all epochs",
    ),
    Row(
        "gpu_percent",
        "use of the machine's GPUs, mean",
        "%",
        "lower",
        "utilisation at the end of the training's turns, mean of turns and of the machine's GPUs",
    ),
    Row(
        "gpu_memory_mib",
        "memory of the machine's GPUs, largest",
        "MiB",
        "lower",
        "largest memory in use at the end of the training's turns, sum of the machine's GPUs",
    ),
)
_OPTIONAL: Final = {row.name for row in ROWS if row.name.startswith("gpu_")}


class TrainingAnalysis(ScenarioAnalysis):
    """One training of a network on a data set in a framework."""

    name = "training"
    computed_in = "analysis/scenarios/training.py"

    def labels(self, study: StudyFile) -> list[str]:
        """One for each combination that the plan asks for."""
        return [setting.label for setting in settings_of(study.plan.training)] if study.plan.training else []

    def label(self, cell: Cell, study: StudyFile) -> str:
        """See ScenarioAnalysis."""
        assert study.plan.training and cell.training is not None
        return settings_of(study.plan.training)[cell.training].label

    def measure(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Measured:
        """See ScenarioAnalysis."""
        if not record.complete or not record.training or not study.plan.training:
            return Measured()
        numbers = _numbers(record.training.record, study.plan.training.reach_top1_percent)
        gpus = record.use.watch.gpus if record.use else None
        return Measured(numbers | _gpu_numbers(gpus, record.training.record))

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """See ScenarioAnalysis."""
        return rows.listed(group, ROWS, _OPTIONAL)

    def defined_rows(self) -> Iterable[Row]:
        """See ScenarioAnalysis."""
        return ROWS

    def notes(self, runs: Sequence[Run], plan: PlanFile) -> Iterable[str]:
        """What trainings that never became as accurate as the plan asks leave open."""
        if plan.training is None:
            return
        complete = [run for run in runs if run.state == "complete"]
        if never := sum(run.numbers.get("to_top1_s") is None for run in complete):
            yield (
                f"{never} of {len(complete)} trainings never reached a top-1 accuracy of "
                f"{plan.training.reach_top1_percent:g} %: the time to it is of the others."
            )

    def add_figures(self, figures: Figures, runs: GroupOfRuns) -> None:
        """See ScenarioAnalysis."""
        trained = {
            engine: [cell.training for cell in cells if cell.training]
            for engine, cells in runs.cells_by_engine().items()
        }
        if any(trained.values()):
            own = {engine: learning(left, runs.record) for engine, left in trained.items() if left}
            figures.training[runs.group] = own
        _add_data_parallel(figures, runs)


def _add_data_parallel(figures: Figures, runs: GroupOfRuns) -> None:
    training, row = runs.record.study.plan.training, runs.row("images_per_s")
    if training is None or row is None:
        return
    setting = next(one for one in settings_of(training) if group_name("training", one.label) == runs.group)
    fewest = with_fewest_processes(training, setting)
    other = fewest and next(
        (metric for metric in runs.metrics if metric.key == f"{group_name('training', fewest.label)}.images_per_s"),
        None,
    )
    if not fewest or not other:
        return
    counts = setting.processes, fewest.processes
    found = {engine: data_parallel(row.values[engine], other.values[engine], counts) for engine in runs.engines}
    if known := {engine: one for engine, one in found.items() if one}:
        figures.data_parallel[runs.group] = known


def _numbers(record: TrainingRecord, reach_top1_percent: float) -> Numbers:
    last, epochs = record.epochs[-1], record.epochs
    images = len(epochs) * record.train_images
    cpu_s = [epoch.cpu_s for epoch in epochs if epoch.cpu_s is not None]
    known = len(cpu_s) == len(epochs)
    use, report = record.use, record.classification
    end = use.samples[-1] if use and use.samples else None
    return {
        "epoch_s": record.seconds / len(epochs),
        "total_s": record.seconds,
        "first_epoch_s": epochs[0].seconds,
        "later_epoch_s": sum(epoch.seconds for epoch in epochs[1:]) / (len(epochs) - 1) if len(epochs) > 1 else None,
        "images_per_s": record.images_per_s,
        "to_top1_s": record.seconds_to(reach_top1_percent / 100),
        "top1_percent": 100 * last.top1,
        "top5_percent": 100 * last.top5,
        "loss": last.loss,
        "training_top1_percent": percent(last.training_top1),
        "training_loss": last.training_loss,
        "precision_percent": percent(report.precision if report else None),
        "recall_percent": percent(report.recall if report else None),
        "f1_percent": percent(report.f1 if report else None),
        "cpu_ms_per_image": 1000 * sum(cpu_s) / images if known else None,
        "cpu_percent": 100 * sum(cpu_s) / (record.seconds * use.cores) if known and use else None,
        "rss_peak_mib": mib(use.rss_peak_bytes) if use else None,
        "disk_read_mib": end.read_bytes / MIB if end else None,
        "disk_reads": float(end.read_ops) if end else None,
        "disk_written_mib": end.write_bytes / MIB if end else None,
        "disk_writes": float(end.write_ops) if end else None,
    }


def _gpu_numbers(gpus: Sequence[GpuUse] | None, record: TrainingRecord) -> Numbers:
    """None where there is no GPU, or where its driver does not tell."""
    images = len(record.epochs) * record.train_images
    energy = [gpu.energy_j for gpu in gpus or ()]
    used = [gpu.utilisation_percent for gpu in gpus or ()]
    memory = [gpu.memory_bytes for gpu in gpus or ()]
    return {
        "gpu_j_per_image": _total(energy, 1 / images),
        "gpu_percent": _total(used, 1 / max(1, len(used))),
        "gpu_memory_mib": _total(memory, 1 / MIB),
    }


def _total(values: Sequence[float | None], factor: float) -> float | None:
    known = [value for value in values if value is not None]
    return factor * sum(known) if known and len(known) == len(values) else None
