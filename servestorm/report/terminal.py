"""The results as a table on stdout: lines and colour on a terminal, Markdown in a pipe."""

from __future__ import annotations

import itertools
import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from servestorm.analysis.metric import Value
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_LABELS, figure_text, p_text
from servestorm.report import sentences, settings
from servestorm.report.headline import first_line
from servestorm.report.result_table import mark_of

PIPE_WIDTH = 200


def print_results(results: Results) -> None:
    """Print the verdict, the table of results, and the reasons to doubt it."""
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else PIPE_WIDTH, highlight=False)
    # captured: by itself rich ends the program with code 1 where the reader (`| head`) has gone
    with console.capture() as captured:
        first = first_line(results)
        for sentence in (first.verdict, *first.further):
            console.print(Text(sentence, style="bold" if sentence == first.verdict else ""), soft_wrap=not terminal)
        console.print()
        # in a pipe it is a Markdown table: plain, and ready for a pull request
        console.print(_table(results, box.SIMPLE_HEAD if terminal else box.MARKDOWN))
        for sentence in sentences.doubts(results):
            console.print(Text(f"note: {sentence}"), soft_wrap=not terminal)
    print(captured.get(), end="")


def _cell(value: Value, best: bool) -> Text:
    text = figure_text(value)
    if mark := mark_of(value):
        return Text(f"{mark} {text}", style="dim")
    return Text(text, style="bold" if best else "")


def _table(results: Results, style: box.Box) -> Table:
    pairs = list(itertools.combinations(results.engines, 2))
    table = Table(box=style, title=f"{sentences.title(results)} ({results.id})", title_justify="left")
    table.add_column("", no_wrap=not sys.stdout.isatty())
    for engine in results.engines:
        table.add_column(ENGINE_LABELS[engine], justify="right")
    for a, b in pairs:
        table.add_column("p" if len(pairs) == 1 else f"p {a}/{b}", justify="right")
    for group, metrics in itertools.groupby(results.metrics, key=lambda metric: metric.group):
        table.add_section()
        load = settings.load_text(results, group)
        table.add_row(Text(f"{results.groups[group]}: {load}", style="bold"))
        for metric in metrics:
            best = sentences.better(results, metric)
            cells = [_cell(metric.values[engine], engine == best) for engine in results.engines]
            ps = [p_text(metric.p[f"{a}|{b}"]) for a, b in pairs]
            table.add_row(f"  {metric.label}, {metric.unit}", *cells, *ps)
    return table
