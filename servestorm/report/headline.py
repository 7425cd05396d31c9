"""The first lines of the report in words: the verdict, the rate to promise, and what is open, why and what to do."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from servestorm.analysis.headline import Equal, Promise, Win, headline
from servestorm.analysis.printable_ratio import Ratio
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number, times_text
from servestorm.report import sentences, settings
from servestorm.report.open_questions import open_texts
from servestorm.report.question_words import QUESTION_WORDS, QuestionWords, interval_text, noun_of


@dataclass(frozen=True)
class FirstLine:
    """What stands above everything else."""

    verdict: str
    """Who is better at what and by how much; or that there is no answer, and why."""
    further: list[str]
    """A sentence each: what is equivalent, the rate to promise, what is open."""


def first_line(results: Results) -> FirstLine:
    """The verdict of a study, in sentences that need no other line of the report."""
    chosen = headline(results)
    promises = [_promise_text(promise) for promise in chosen.promises]
    if results.verdicts:
        every = [
            *_win_texts(chosen.wins),
            *_equal_texts(chosen.equal, settings.margin_percent(results)),
            *promises,
            *open_texts(chosen.open, results.engines),
        ]
    else:
        every = [*_alone(results), *promises]
    first, *further = every or [_nothing(results)]
    return FirstLine(first, further)


def _win_texts(wins: Sequence[Win]) -> list[str]:
    """A sentence for each engine that is better than another at something, the best engine first."""
    by_engine = itertools.groupby(wins, key=lambda win: win.engine)
    return [_engine_text(engine, list(own)) for engine, own in by_engine]


def _engine_text(engine: str, wins: Sequence[Win]) -> str:
    """What an engine is better at.

    'savedmodel answers 1.62 times as fast as TorchServe under steady load (p50; 1.55 to 1.70), uses 0.48 times ...'
    """
    by_question = {
        question: list(own)
        for question, own in itertools.groupby(wins, key=lambda win: win.question)
        if not _is_said(question, wins)
    }
    several = len({win.over for win in wins}) > 1
    clauses: list[str] = []
    place = ""
    for question, own in by_question.items():
        clauses.append(_clause(QUESTION_WORDS[question], own, named=several or not clauses, before=place))
        place = QUESTION_WORDS[question].place or place
    return f"{ENGINE_SHORT[engine]} {_series(clauses)}."


def _is_said(question: str, wins: Sequence[Win]) -> bool:
    """Whether the win under bursts repeats the one under steady load."""
    scenario, name = question.split(".")
    over = {win.over for win in wins if win.question == question}
    return scenario == "bursty" and over <= {win.over for win in wins if win.question == f"steady.{name}"}


def _clause(asked: QuestionWords, wins: Sequence[Win], named: bool, before: str) -> str:
    """'answers 1.62 times as fast as TorchServe under steady load (p50; 1.55 to 1.70)'."""
    place = "" if asked.place == before else asked.place
    if len(wins) == 1:
        (win,) = wins
        note = _joined(asked.note, _where(win), by=", ")
        asides = _joined(note, interval_text(_shown(asked, win)), by="; ")
        return _joined(asked.verb, _size(asked, win, named), asked.at, place, _bracketed(asides))
    sizes = [
        _joined(
            _size(asked, win, named=True), _bracketed(_joined(interval_text(_shown(asked, win)), _where(win), by=", "))
        )
        for win in wins
    ]
    return _joined(asked.verb, sentences.listed(sizes), asked.at, place, _bracketed(asked.note))


def _joined(*parts: str, by: str = " ") -> str:
    """The parts that are not empty."""
    return by.join(filter(None, parts))


def _bracketed(text: str) -> str:
    return f"({text})" if text else ""


def _shown(asked: QuestionWords, win: Win) -> Ratio | None:
    """The ratio as it is printed: of speeds, which are larger where times are shorter."""
    return win.ratio.inverse if win.ratio and asked.kind == "speed" else win.ratio


def _size(asked: QuestionWords, win: Win, named: bool) -> str:
    """'1.62 times as fast as TorchServe', or '0.48 times the CPU time an image'."""
    other, ratio = ENGINE_SHORT[win.over], _shown(asked, win)
    if ratio:
        times = times_text(ratio.value)
    elif win.span:
        times = " to ".join(map(times_text, _spanned(asked, win.span)))
    else:
        return f"{asked.vaguely} than {other}" if named else asked.vaguely
    if asked.kind == "speed":
        return f"{times} times as fast as {other}" if named else f"{times} times as fast"
    return f"{times} times {other}'s {asked.noun}" if named else f"{times} times the {asked.noun}"


def _spanned(asked: QuestionWords, span: tuple[float, float]) -> tuple[float, float]:
    low, high = (Ratio(end, None) for end in span)
    return (high.inverse.value, low.inverse.value) if asked.kind == "speed" else span


def _where(part: Win | Equal) -> str:
    """'in 3 of 4 variants'; '' where the question was asked once."""
    if part.of == 1:
        return ""
    own = len(part.groups)
    return f"in each of {part.of} variants" if own == part.of else f"in {own} of {part.of} variants"


def _series(clauses: Sequence[str]) -> str:
    """'a', 'a and b' or 'a, b, and c': with the last comma, for clauses hold lists of their own."""
    return " and ".join(clauses) if len(clauses) < 3 else f"{', '.join(clauses[:-1])}, and {clauses[-1]}"


def _equal_texts(equal: Sequence[Equal], margin_percent: float) -> list[str]:
    texts = []
    for (a, b), own in _by_pair(equal).items():
        nouns = sentences.listed([_joined(noun_of(one.question), _bracketed(_where(one))) for one in own])
        margin = f"they differ by less than {margin_percent:g} %"
        texts.append(f"{ENGINE_SHORT[a]} and {ENGINE_SHORT[b]} are equivalent in {nouns}: {margin}.")
    return texts


def _by_pair(parts: Iterable[Equal]) -> dict[tuple[str, str], list[Equal]]:
    pairs: dict[tuple[str, str], list[Equal]] = {}
    for part in parts:
        pairs.setdefault((part.a, part.b), []).append(part)
    return pairs


def _promise_text(promise: Promise) -> str:
    """'Promise at most 359 images/s on savedmodel and 126 images/s on TorchServe: their p99 stays within 50 ms.'"""
    where = f"{promise.group}: " if promise.several else ""
    limit = f"{promise.p99_ms:g} ms"
    names = sentences.listed([ENGINE_SHORT[engine] for engine in promise.without]) if promise.without else ""
    if not promise.images_per_s:
        return f"{where}No rate to promise: no search of {names} that counts has one that keeps a p99 of {limit}."
    rates = [f"{number(rate, 'images/s')} on {ENGINE_SHORT[engine]}" for engine, rate in promise.images_per_s.items()]
    text = f"{where}Promise at most {sentences.listed(rates)}, to keep the p99 within {limit}"
    return f"{text}; no search of {names} that counts has such a rate." if names else f"{text}."


def _alone(results: Results) -> list[str]:
    """What one engine does, in a sentence: there is nothing to compare it with."""
    if len(results.engines) > 1:
        return sentences.summary(results)[:1]
    (engine,) = results.engines
    answers = _latencies(results, engine, "steady", "under steady load")
    answers = answers or _latencies(results, engine, "bursty", "in bursty load")
    start = _quoted(results, engine, "coldstart.total_s")
    clauses = [f"answers in {answers}" if answers else "", f"starts in {start}" if start else ""]
    known = [clause for clause in clauses if clause]
    return [f"{ENGINE_SHORT[engine]} {_series(known)}."] if known else []


def _latencies(results: Results, engine: str, scenario: str, place: str) -> str:
    """'11.7 ms (p50) and 28.9 ms (p99) under steady load'; '' where neither is known."""
    known = {name: text for name in ("p50", "p99") if (text := _quoted(results, engine, f"{scenario}.{name}"))}
    return f"{sentences.listed([f'{text} ({name})' for name, text in known.items()])} {place}" if known else ""


def _quoted(results: Results, engine: str, key: str) -> str:
    """An engine's figure with its unit; '' where there is none that may be quoted."""
    metric = results.metric(key)
    value = metric.quotable().get(engine) if metric else None
    return number(value, sentences.unit_of(results, metric)) if metric and value is not None else ""


def _nothing(results: Results) -> str:
    if any(run.counts for run in results.runs):
        return "No answer: the plan asks no question that has a verdict; the results are below."
    return "No answer: no run of the study counts; the table under Validity has the reasons."
