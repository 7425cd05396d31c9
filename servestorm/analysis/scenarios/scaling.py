"""Scaling: what more replicas give, in throughput or in the rate that keeps the objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from servestorm.analysis.figures import Figures, Law
from servestorm.analysis.load_numbers import load_numbers
from servestorm.analysis.metric import Metric, Row
from servestorm.analysis.rows import THROUGHPUT, Rows
from servestorm.analysis.run import Run
from servestorm.analysis.scenario import GroupOfRuns, Measured, ScenarioAnalysis
from servestorm.analysis.search_numbers import (
    is_search_valid,
    measured_search,
    missing_estimates,
    search_reasons,
)
from servestorm.methods.disturbance import Disturbance
from servestorm.methods.samples import Samples
from servestorm.methods.scaling_law import fit_usl
from servestorm.plan.cells import by_capacity
from servestorm.rundir.disturbed_runs import search_disturbance
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import PlanFile, StudyFile


class ScalingAnalysis(ScenarioAnalysis):
    """One number of replicas under a closed loop, or under a capacity search."""

    name = "scaling"
    computed_in = "analysis/scenarios/scaling.py"

    def measure(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Measured:
        """See ScenarioAnalysis."""
        if by_capacity(study.plan, record.cell):
            return measured_search(record, study.variants[record.cell.variant].images_per_request)
        return Measured(load_numbers(record, samples, study.plan) if samples else {})

    def is_valid(self, record: CellRecord) -> bool | None:
        """See ScenarioAnalysis."""
        return super().is_valid(record) if record.summary else is_search_valid(record)

    def reasons(self, record: CellRecord) -> list[str]:
        """See ScenarioAnalysis."""
        return [*super().reasons(record), *search_reasons(record)]

    def disturbance(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Disturbance | None:
        """See ScenarioAnalysis."""
        return (
            search_disturbance(record, study.plan) if record.capacity else super().disturbance(record, study, samples)
        )

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """Throughput of each replica count, and against the first: speed-up, efficiency and evenness."""
        asked = record.study.plan.scaling
        assert asked
        base = asked.replicas[0]
        for count in asked.replicas:
            yield rows.metric(group, _rate(asked.measure, count), _numbers(rows, group, _images_per_s, count))
        for count in asked.replicas[1:]:
            factors = {engine: _factors(rows.runs_of(group, engine), base, count) for engine in rows.engines}
            shares = {e: [None if f is None else 100 * f * base / count for f in own] for e, own in factors.items()}
            yield rows.metric(group, _speed_up(base, count), factors)
            yield rows.metric(group, _efficiency(count), shares)
            yield rows.metric(group, _unevenness(count), _numbers(rows, group, _largest_over_mean, count))

    def defined_rows(self) -> Iterable[Row]:
        """See ScenarioAnalysis."""
        return (_rate("throughput", "N"), _speed_up("the first number", "N"), _efficiency("N"), _unevenness("N"))

    def notes(self, runs: Sequence[Run], plan: PlanFile) -> Iterable[str]:
        """Searches without an estimate."""
        return missing_estimates(runs)

    def add_figures(self, figures: Figures, runs: GroupOfRuns) -> None:
        """See ScenarioAnalysis."""
        if runs.runs:
            figures.scaling_law[runs.group] = {
                engine: _law(own, _means(runs, engine)) for engine, own in runs.by_engine().items()
            }


def _rate(measure: str, count: int | str) -> Row:
    what = (
        "the estimate, as in the capacity's rows"
        if measure == "capacity"
        else f"{THROUGHPUT.definition}, in a closed loop"
    )
    label = f"{measure}, {count} replica{'' if count == 1 else 's'}"
    return Row(f"images_per_s_x{count}", label, "images/s", "higher", what)


def _speed_up(base: int | str, count: int | str) -> Row:
    return Row(
        f"factor_x{count}",
        f"speed-up within a repetition, {count} against {base}",
        "×",
        "higher",
        "throughput by that of the first number of replicas in the same repetition; so it may differ from the ratio of "
        "the two throughputs, each a mean over its runs",
    )


def _efficiency(count: int | str) -> Row:
    definition = "speed-up by how many times as many replicas there are"
    return Row(f"efficiency_x{count}", f"efficiency, {count} replicas", "%", "higher", definition)


def _unevenness(count: int | str) -> Row:
    label = f"busiest of {count} replicas against their mean"
    definition = "requests that the busiest replica got by those of an average one"
    return Row(f"unevenness_x{count}", label, "×", "lower", definition)


def _means(runs: GroupOfRuns, engine: str) -> list[tuple[int, float]]:
    """[replicas, images/s] of the rows that have a figure."""
    rates = [(count, runs.row(f"images_per_s_x{count}")) for count in sorted({run.replicas for run in runs.runs})]
    known = [(count, row.values[engine].value) for count, row in rates if row]
    return [(count, rate) for count, rate in known if rate is not None]


def _images_per_s(run: Run) -> float | None:
    """The rate by which replica counts are compared: of a search the estimate, of a closed loop the throughput."""
    return run.numbers.get("crossing_images_per_s" if run.capacity else "images_per_s")


def _largest_over_mean(run: Run) -> float | None:
    return run.numbers.get("largest_over_mean")


def _numbers(
    rows: Rows, group: str, number: Callable[[Run], float | None], replicas: int
) -> dict[str, list[float | None]]:
    """A number of each engine's runs with so many replicas."""
    return {
        engine: [number(run) for run in rows.runs_of(group, engine) if run.replicas == replicas]
        for engine in rows.engines
    }


def _factors(runs: Sequence[Run], base: int, count: int) -> list[float | None]:
    """Of each repetition that has both: its own throughput ratio."""
    rates = {(run.repetition, run.replicas): _images_per_s(run) for run in runs}
    repetitions = sorted({repetition for repetition, _ in rates})
    pairs = [(rates.get((r, base)), rates.get((r, count))) for r in repetitions]
    return [many / one for one, many in pairs if one and many]


def _law(runs: Sequence[Run], means: list[tuple[int, float]]) -> Law:
    """Throughput by replicas of every run, and the Universal Scalability Law fitted to it where that can be done."""
    points = [(run.replicas, own) for run in runs if (own := _images_per_s(run)) is not None]
    law = fit_usl([count for count, _ in points], [own for _, own in points])
    return Law(
        points=points,
        lambda_=law.lambda_ if law else None,
        sigma=law.sigma if law else None,
        kappa=law.kappa if law else None,
        r2=law.r2 if law else None,
        peak_replicas=law.peak_replicas if law else None,
        curve=list(law.curve(max(count for count, _ in points))) if law else [],
        means=means,
        linear=[(count, means[0][1] * count / means[0][0]) for count, _ in means],
    )
