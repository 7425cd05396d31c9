"""A simple table: 3 runs, mean, SD, t, p, with no correction for several comparisons."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from servestorm.analysis.metric import Value
from servestorm.analysis.results import Results
from servestorm.methods.paper import PAPER_RUNS, Paper, paper
from servestorm.plan.labels import ENGINE_SHORT, number, p_text, spread_text

PIPE_WIDTH = 200


def print_paper(results: Results) -> None:
    """Print one row for each judged metric and pair of engines."""
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else PIPE_WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(_table(results, box.SIMPLE_HEAD if terminal else box.MARKDOWN))
        console.print(
            f"Mean ± standard deviation of the first {PAPER_RUNS} runs of each that count, Welch's t-test, no "
            f"correction for {len(results.verdicts)} comparisons: chance alone makes one in twenty of them "
            "significant. The verdicts of the report correct for that.",
            soft_wrap=not terminal,
        )
    print(captured.get(), end="")


def _table(results: Results, style: box.Box) -> Table:
    table = Table("", "a", "b", "t", "df", "p", "p < 0.05", box=style, title="Plain comparison", title_justify="left")
    for judged in results.verdicts:
        metric = results.metric(judged.metric)
        assert metric
        test = paper(_runs(metric.values[judged.a]), _runs(metric.values[judged.b]))
        question = "; ".join([f"{judged.label}, {metric.unit}", *judged.unbatched_texts])
        table.add_row(question, *_sides(judged.a, judged.b, test), *_test(test))
    return table


def _runs(value: Value) -> list[float | None]:
    return value.runs if value.counts else []


def _sides(a: str, b: str, test: Paper) -> tuple[str, str]:
    return (
        f"{ENGINE_SHORT[a]} {spread_text(test.mean_a, test.sd_a)} (n = {test.n_a})",
        f"{ENGINE_SHORT[b]} {spread_text(test.mean_b, test.sd_b)} (n = {test.n_b})",
    )


def _test(test: Paper) -> tuple[str, str, str, str]:
    significant = {True: "yes", False: "no", None: "–"}[test.significant]
    return number(test.t), number(test.df), p_text(test.p), significant
