"""Training and accuracy: curves over epochs, the confusion matrix, sample answers, use over time, and cost."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from servestorm.analysis.figures import ClassFigure, Learning, SampleFigure
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import INK, LINES, MUTED, PAPER, Drawing, draw, engine_colour, gaps, legend, slug
from servestorm.report.data_parallel_part import data_parallel_part
from servestorm.report.part import Section, SectionPart, Table, groups_of, make_part, marked, section_of
from servestorm.report.price_bars import dated, machine_rows, price_bar

MOST_CLASSES: Final = 20
"""Of a confusion matrix that can be read."""
LEAST_USD: Final = 0.1
"""Of a training that is priced by itself, and not with a thousand like it."""
Learnt = Mapping[str, Learning]
"""By framework."""


def section(results: Results) -> Section:
    """The figures of each group of trainings."""
    parts = [part for group in groups_of(results, "training") for part in _parts(results, group)]
    scaling = data_parallel_part(results)
    return section_of("training", "Training and accuracy", [*parts, scaling] if scaling else parts)


def _parts(results: Results, group: str) -> Iterator[SectionPart]:
    learnt = results.figures.training.get(group, {})
    if not learnt:
        return
    several = len(groups_of(results, "training")) > 1
    for make in (_curves, _confusion, _samples, _use, _costs):
        if part := make(results, group, learnt, results.groups[group] if several else ""):
            yield part


def _curves(results: Results, group: str, learnt: Learnt, title: str) -> SectionPart:
    """Accuracy and loss by epoch."""

    def paint(figure: Figure, narrow: bool) -> None:
        panels: Any = figure.subplots(2 if narrow else 1, 1 if narrow else 2)
        names = (("top-1 accuracy, %", "top1_percent"), ("loss, nats", "loss"))
        for axes, (label, name) in zip(panels, names, strict=True):
            for engine, own in learnt.items():
                colour = engine_colour(results.engines.index(engine))
                for part, line in ((name, LINES[0]), (f"training_{name}", LINES[1])):
                    values = gaps(getattr(own, part))
                    axes.plot(range(1, len(values) + 1), values, color=colour, linestyle=line, marker=".")
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            axes.set_xlabel("epoch")
            axes.set_title(label, loc="left", fontsize=9.5, color=MUTED)
        frameworks = [Patch(facecolor=engine_colour(results.engines.index(engine)), linewidth=0) for engine in learnt]
        kinds = [Line2D([], [], color=MUTED, linestyle=line) for line in LINES[:2]]
        labels = [*(ENGINE_SHORT[engine] for engine in learnt), "held-out images", "training images"]
        legend(figure, [*frameworks, *kinds], labels, narrow, columns=2)

    columns = (
        ("top-1", "top1_percent"),
        ("top-5", "top5_percent"),
        ("loss", "loss"),
        ("training top-1", "training_top1_percent"),
        ("training top-5", "training_top5_percent"),
        ("training loss", "training_loss"),
    )
    rows = [
        [f"{ENGINE_SHORT[engine]}, {epoch + 1}", *(number(getattr(own, name)[epoch]) for _, name in columns)]
        for engine, own in learnt.items()
        for epoch in range(len(own.loss))
    ]
    caption = (
        "Means over runs after each epoch. Accuracy is of images as they are; the loss on training images is that of "
        "the epoch's augmented batches, while the network still changed."
    )
    return make_part(
        f"learning-{slug(group)}",
        draw(f"learning-{slug(group)}", paint, 3.2, 5.2),
        marked(results, group, caption),
        Table("Learning by epoch", ["Framework, epoch", *(head for head, _ in columns)], rows),
        title,
    )


def _confusion(results: Results, group: str, learnt: Learnt, title: str) -> SectionPart | None:
    """What held-out images are taken for, and the report by class."""
    known = {engine: own for engine, own in learnt.items() if own.confusion}
    if not known:
        return None
    first = next(iter(known.values()))
    shown = sorted(first.hardest[:MOST_CLASSES])

    def paint(figure: Figure, narrow: bool) -> None:
        panels: Any = figure.subplots(len(known) if narrow else 1, 1 if narrow else len(known), squeeze=False)
        for place, (axes, (engine, own)) in enumerate(zip(panels.flat, known.items(), strict=True)):
            _matrix(axes, own, shown, engine_colour(results.engines.index(engine)), named=narrow or place == 0)
            axes.set_title(ENGINE_SHORT[engine], loc="left", fontsize=9.5, color=MUTED)

    heads = ("precision", "recall", "F1")
    head = ["Class", "Images a run", *(f"{ENGINE_SHORT[engine]}: {name}" for engine in known for name in heads)]
    rows = [
        [one.name, f"{one.support:,}", *(text for own in known.values() for text in _scores(own.classes[place]))]
        for place, one in enumerate(first.classes)
    ]
    some = ""
    if len(shown) < len(first.labels):
        least = f"the {len(shown)} that {ENGINE_SHORT[next(iter(known))]} recalls least"
        some = f"Of {len(first.labels)} classes, {least}. "
    caption = (
        f"{some}Each row is a true class, each column the class that came first; a number is of held-out images of "
        "all runs together, and shades are shares of the row. The table has precision, recall and F1 by class, means "
        "over runs."
    )
    size_in = 1.1 + 0.3 * max(5, len(shown))
    return make_part(
        f"confusion-{slug(group)}",
        draw(f"confusion-{slug(group)}", paint, size_in, size_in * len(known)),
        marked(results, group, caption),
        Table("Classification report", head, rows),
        title,
    )


def _matrix(axes: Axes, own: Learning, shown: Sequence[int], colour: str, *, named: bool) -> None:
    for row, true in enumerate(shown):
        for column, answer in enumerate(shown):
            count = own.confusion[true][answer]
            if count:
                share = own.confusion_percent[true][answer] / 100
                axes.add_patch(
                    Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=0.12 + 0.6 * share, linewidth=0)
                )
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=INK, fontsize=7.5)
    names = [textwrap.shorten(own.labels[place], 14, placeholder="…") for place in shown]
    axes.set_xticks(range(len(shown)), names, rotation=90, color=INK, fontsize=8)
    axes.set_yticks(range(len(shown)), names if named else [""] * len(shown), color=INK, fontsize=8)
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(visible=False)


def _scores(one: ClassFigure) -> list[str]:
    return [f"{one.precision:.2f}", f"{one.recall:.2f}", f"{one.f1:.2f}"]


def _samples(results: Results, group: str, learnt: Learnt, title: str) -> SectionPart | None:
    """Some held-out images with what each framework's network says of them."""
    known = {engine: own.samples for engine, own in learnt.items() if own.samples}
    if not known:
        return None
    most = max(len(samples) for samples in known.values())

    def paint(figure: Figure, narrow: bool) -> None:
        columns = 6 if narrow else 12
        lines = -(-most // columns)
        panels: Any = figure.subplots(lines * len(known), columns, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for block, (engine, samples) in enumerate(known.items()):
            own = panels[block * lines : (block + 1) * lines].flat
            for place, (axes, sample) in enumerate(zip(own, samples, strict=False)):
                _image(axes, sample, f"{ENGINE_SHORT[engine]}\n" if place == 0 else "\n")

    rows = [
        [
            ENGINE_SHORT[engine],
            one.label,
            one.answer,
            f"{100 * one.probability:.0f} %",
            "right" if one.right else "wrong",
        ]
        for engine, samples in known.items()
        for one in samples
    ]
    caption = (
        "Held-out images of the first run, chosen at random among the right answers (up to six, first) and the wrong "
        "ones: what each is taken for, with the probability, and for a wrong one what it is."
    )
    height_in = 1.35 * len(known) * -(-most // 12)
    return make_part(
        f"samples-{slug(group)}",
        draw(f"samples-{slug(group)}", paint, height_in, 1.35 * len(known) * -(-most // 6)),
        marked(results, group, caption),
        Table("Sample answers", ["Framework", "Class", "Taken for", "Probability", "Answer"], rows),
        title,
    )


def _image(axes: Axes, sample: SampleFigure, head: str) -> None:
    image = Image.open(io.BytesIO(base64.b64decode(sample.png))).convert("RGB")
    axes.imshow(image, interpolation="nearest")
    answer = f"{textwrap.shorten(sample.answer, 13, placeholder='…')} {100 * sample.probability:.0f} %"
    label = "" if sample.right else f"is {textwrap.shorten(sample.label, 11, placeholder='…')}"
    axes.set_title(f"{head}{answer}", fontsize=7, color=INK if sample.right else MUTED, loc="left", pad=2)
    axes.text(0, -0.04, label, transform=axes.transAxes, fontsize=7, color=INK, va="top")


def _use(results: Results, group: str, learnt: Learnt, title: str) -> SectionPart | None:
    """How busy the cores were, in twentieths of each training."""
    lines = [
        (engine, run, parts) for engine, own in learnt.items() for run, parts in enumerate(own.cpu_percent) if parts
    ]
    if not lines:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for row, (engine, _, parts) in enumerate(lines):
            colour = engine_colour(results.engines.index(engine))
            for column, percent in enumerate(parts):
                alpha = 0.05 + 0.8 * min(1.0, (percent or 0.0) / 100)
                axes.add_patch(
                    Rectangle(
                        (column, row - 0.45), 1, 0.9, facecolor=colour, edgecolor=PAPER, alpha=alpha, linewidth=0.8
                    )
                )
                if not narrow:
                    axes.text(
                        column + 0.5, row, f"{percent or 0:.0f}", ha="center", va="center", color=INK, fontsize=7.5
                    )
        axes.set_yticks(range(len(lines)), [f"{ENGINE_SHORT[e]}, run {run + 1}" for e, run, _ in lines], color=INK)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlim(0, max(len(parts) for _, _, parts in lines))
        axes.set_xticks([0, 5, 10, 15, 20], ["0", "25", "50", "75", "100 %"])
        axes.set_xlabel("share of the training's time")
        axes.grid(visible=False)

    rows = []
    for engine, own in learnt.items():
        for run, parts in enumerate(own.cpu_percent):
            memory, read, written = own.rss_mib[run], own.read_mib_per_s[run], own.written_mib_per_s[run]
            cells = [_span(parts), _span(memory), _span(read), _span(written)]
            rows.append([f"{ENGINE_SHORT[engine]}, {run + 1}", *cells])
    caption = (
        "Use of the cores in percent of all of them, in twentieths of each training's own time; what passes while the "
        "other framework has its turn is left out. The table has the smallest and the largest twentieth, and those of "
        "memory and disk."
    )
    head = ["Framework, run", "Cores, %", "Memory, MiB", "Read, MiB/s", "Written, MiB/s"]
    return make_part(
        f"busy-{slug(group)}",
        draw(f"busy-{slug(group)}", paint, 0.9 + 0.32 * len(lines)),
        marked(results, group, caption),
        Table("Use over time", head, rows),
        title,
    )


def _span(parts: Sequence[float | None]) -> str:
    """'71 to 98'; '–' where nothing is known."""
    known = [part for part in parts if part is not None]
    return f"{number(min(known))} to {number(max(known))}" if known else number(None)


def _costs(results: Results, group: str, learnt: Learnt, title: str) -> SectionPart | None:
    """US dollars of a training, by instance type."""
    prices = {engine: {(c.provider, c.instance): c for c in own.costs} for engine, own in learnt.items()}
    places = list(dict.fromkeys(place for own in prices.values() for place in own))
    if not places:
        return None
    trainings = 1 if max(c.usd for own in prices.values() for c in own.values()) >= LEAST_USD else 1000
    unit = "a training" if trainings == 1 else f"{trainings:,} trainings"
    usd = {engine: {place: trainings * cost.usd for place, cost in own.items()} for engine, own in prices.items()}
    drawing = _bars(f"price-{slug(group)}", results.engines, usd, places, f"US dollars, {unit}")
    rows = [
        [f"{instance}, {provider}", *(number(own[provider, instance]) for own in usd.values())]
        for provider, instance in places
    ]
    days = dated(cost.dated for own in prices.values() for cost in own.values())
    caption = (
        f"What {unit} cost{'s' if trainings == 1 else ''} at on-demand prices of {days}: the mean time, with every "
        "vCPU as fast as a core of the study and as many at work, and a larger machine paid for by the share that is "
        "used. A value to compare frameworks by, not a bill."
    )
    head = ["Instance", *(f"{ENGINE_SHORT[engine]}, USD" for engine in prices)]
    return make_part(
        f"price-{slug(group)}", drawing, marked(results, group, caption), Table(f"Cost of {unit}", head, rows), title
    )


def _bars(
    name: str,
    engines: Sequence[str],
    usd: Mapping[str, Mapping[tuple[str, str], float]],
    places: Sequence[tuple[str, str]],
    label: str,
) -> Drawing:
    width = 0.78 / len(usd)

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        for index, (engine, own) in enumerate(usd.items()):
            for row, place in enumerate(places):
                colour = engine_colour(engines.index(engine))
                price_bar(axes, row - 0.39 + width * (index + 0.5), own.get(place), width, colour)
        machine_rows(axes, places, narrow)
        axes.set_xlabel(label)
        swatches = [Patch(facecolor=engine_colour(engines.index(engine)), linewidth=0) for engine in usd]
        legend(figure, swatches, [ENGINE_SHORT[engine] for engine in usd], narrow)

    row_in = 0.24 * len(usd) + 0.16
    return draw(name, paint, 1.1 + row_in * len(places), 1.3 + (row_in + 0.1) * len(places))
