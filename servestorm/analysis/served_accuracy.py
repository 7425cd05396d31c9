"""The accuracy of what was served: the export's, times the answers under load that were the export's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from servestorm.analysis.figures import ServedAccuracy
from servestorm.methods.percentiles import share_interval
from servestorm.rundir.record import RunRecord
from servestorm.rundir.shapes.cell import SummaryFile


def served_accuracy(record: RunRecord) -> list[ServedAccuracy]:
    """Of each model whose accuracy the export measured, by engine; without one whose answers were never checked."""
    right: Counter[tuple[int, str]] = Counter()
    wrong: Counter[tuple[int, str]] = Counter()
    for cell in record.cells:
        key = record.study.variants[cell.cell.variant].model if record.study.variants else 0, str(cell.cell.engine)
        for summary in _checked([cell.summary, *(load.summary for load in cell.loads)]):
            right[key] += summary.ok
            wrong[key] += summary.wrong_answers
    found = []
    for place, manifest in enumerate(record.manifests):
        accuracy = manifest.accuracy if manifest else None
        for engine in map(str, record.study.plan.engines):
            answers = right[place, engine] + wrong[place, engine]
            if manifest is None or accuracy is None or not answers:
                continue
            share = right[place, engine] / answers
            ends = share_interval(round(accuracy.top1 * accuracy.images), accuracy.images)
            found.append(
                ServedAccuracy(
                    model=manifest.name,
                    engine=engine,
                    answers=answers,
                    wrong=wrong[place, engine],
                    top1_percent=100 * accuracy.top1 * share,
                    top1_percent_ci=(100 * ends[0] * share, 100 * ends[1] * share),
                    images=accuracy.images,
                )
            )
    return found


def _checked(summaries: Iterable[SummaryFile | None]) -> Iterable[SummaryFile]:
    return (summary for summary in summaries if summary and summary.answers == "checked")
