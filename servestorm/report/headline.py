"""The first lines of the report in words: the verdict, the rate to promise, and what is open, why and what to do."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from servestorm.analysis.headline import Because, Equal, Open, Promise, Win, headline
from servestorm.analysis.printable_ratio import Ratio
from servestorm.analysis.results import Results
from servestorm.methods.reasons import advice
from servestorm.plan.labels import ENGINE_SHORT, number, times_text
from servestorm.report import sentences, settings


@dataclass(frozen=True)
class FirstLine:
    """What stands above everything else."""

    verdict: str
    """Who is better at what and by how much; or that there is no answer, and why."""
    further: list[str]
    """A sentence each: what is equivalent, the rate to promise, what is open."""


@dataclass(frozen=True)
class _Question:
    """A question in words."""

    noun: str
    """'p50'."""
    place: str
    """'under steady load', or ''."""
    verb: str
    """What the better engine does: 'answers'."""
    kind: Literal["speed", "share"]
    """speed: '1.62 times as fast as X'; share: '0.48 times X's CPU time an image'."""
    vaguely: str
    """The same where no number is known: 'faster'."""
    at: str = ""
    """What follows the size: 'at the p99'."""
    note: str = ""
    """What the size is of, in brackets."""


_P50: Final = ("answers", "speed", "faster", "", "p50")
_P99: Final = ("is", "speed", "faster", "at the p99", "")
_QUESTIONS: Final = {
    "steady.p50": _Question("p50", "under steady load", *_P50),
    "bursty.p50": _Question("p50", "in bursty load", *_P50),
    "steady.p99": _Question("p99", "under steady load", *_P99),
    "bursty.p99": _Question("p99", "in bursty load", *_P99),
    "steady.cpu_ms_per_image": _Question("CPU time an image", "", "uses", "share", "less CPU time an image"),
    "coldstart.total_s": _Question("cold start", "", "starts", "speed", "faster"),
    "capacity.images_per_s": _Question("rate under the objective", "", "sustains", "share", "a higher rate"),
    "autoscaling.ready_s": _Question("time to a new replica", "under a burst", "adds a replica", "speed", "faster"),
    "autoscaling.recover_s": _Question("time to recover", "from a burst", "recovers", "speed", "faster"),
    "autoscaling.violations_percent": _Question(
        "share of late requests", "", "has", "share", "a smaller share of late requests"
    ),
    "autoscaling.replica_seconds": _Question("replica time", "", "needs", "share", "less replica time"),
}


def first_line(results: Results) -> FirstLine:
    """The verdict of a study, in sentences that need no other line of the report."""
    chosen = headline(results)
    promises = [_promise_text(promise) for promise in chosen.promises]
    if results.verdicts:
        every = [
            *(
                _engine_text(engine, list(own))
                for engine, own in itertools.groupby(chosen.wins, lambda win: win.engine)
            ),
            *_equal_texts(chosen.equal, settings.margin_percent(results)),
            *promises,
            *_open_texts(chosen.open, results.engines),
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
        clauses.append(_clause(_QUESTIONS[question], own, named=several or not clauses, before=place))
        place = _QUESTIONS[question].place or place
    return f"{ENGINE_SHORT[engine]} {_series(clauses)}."


def _is_said(question: str, wins: Sequence[Win]) -> bool:
    """Whether the win under bursts repeats the one under steady load."""
    scenario, name = question.split(".")
    over = {win.over for win in wins if win.question == question}
    return scenario == "bursty" and over <= {win.over for win in wins if win.question == f"steady.{name}"}


def _clause(asked: _Question, wins: Sequence[Win], named: bool, before: str) -> str:
    """'answers 1.62 times as fast as TorchServe under steady load (p50; 1.55 to 1.70)'."""
    place = "" if asked.place == before else asked.place
    if len(wins) == 1:
        (win,) = wins
        note = _joined(asked.note, _where(win), by=", ")
        asides = _joined(note, _interval(_shown(asked, win)), by="; ")
        return _joined(asked.verb, _size(asked, win, named), asked.at, place, _bracketed(asides))
    sizes = [
        _joined(_size(asked, win, named=True), _bracketed(_joined(_interval(_shown(asked, win)), _where(win), by=", ")))
        for win in wins
    ]
    return _joined(asked.verb, sentences.listed(sizes), asked.at, place, _bracketed(asked.note))


def _joined(*parts: str, by: str = " ") -> str:
    """The parts that are not empty."""
    return by.join(filter(None, parts))


def _bracketed(text: str) -> str:
    return f"({text})" if text else ""


def _shown(asked: _Question, win: Win) -> Ratio | None:
    """The ratio as it is printed: of speeds, which are larger where times are shorter."""
    return win.ratio.inverse if win.ratio and asked.kind == "speed" else win.ratio


def _size(asked: _Question, win: Win, named: bool) -> str:
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


def _spanned(asked: _Question, span: tuple[float, float]) -> tuple[float, float]:
    low, high = (Ratio(end, None) for end in span)
    return (high.inverse.value, low.inverse.value) if asked.kind == "speed" else span


def _interval(ratio: Ratio | None) -> str:
    """'1.55 to 1.70'; '' where there is no interval."""
    return " to ".join(map(times_text, ratio.interval)) if ratio and ratio.interval else ""


def _where(part: Win | Equal) -> str:
    """'in 3 of 4 variants'; '' where the question was asked once."""
    if part.of == 1:
        return ""
    return (
        f"in each of {part.of} variants"
        if len(part.groups) == part.of
        else f"in {len(part.groups)} of {part.of} variants"
    )


def _series(clauses: Sequence[str]) -> str:
    """'a', 'a and b' or 'a, b, and c': with the last comma, for clauses hold lists of their own."""
    return " and ".join(clauses) if len(clauses) < 3 else f"{', '.join(clauses[:-1])}, and {clauses[-1]}"


def _equal_texts(equal: Sequence[Equal], margin_percent: float) -> list[str]:
    texts = []
    for (a, b), own in _by_pair(equal).items():
        nouns = [
            " ".join(filter(None, [_noun(one.question), f"({where})" if (where := _where(one)) else ""])) for one in own
        ]
        names = sentences.listed([ENGINE_SHORT[a], ENGINE_SHORT[b]])
        texts.append(
            f"{names} are equivalent in {sentences.listed(nouns)}: they differ by less than {margin_percent:g} %."
        )
    return texts


def _noun(question: str) -> str:
    asked = _QUESTIONS[question]
    return f"{asked.noun} {asked.place}".strip()


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


def _open_texts(unanswered: Sequence[Open], engines: Sequence[str]) -> list[str]:
    """A sentence for the questions that are open for the same reason."""
    alike: dict[tuple[object, ...], list[Open]] = {}
    for one in unanswered:
        own = (one.question, one.a, one.b) if one.because == "near" else None
        alike.setdefault((one.because, tuple(one.engines), one.detail, own, one.runs_more is None), []).append(one)
    return [_open_text(own, engines) for own in alike.values()]


def _open_text(unanswered: Sequence[Open], engines: Sequence[str]) -> str:
    """'No answer on p99 under steady load: the runs scatter too much to say; about 14 more runs of each would tell.'"""
    most = max(unanswered, key=lambda one: one.runs_more or 0)
    nouns = sentences.listed(list(dict.fromkeys(_noun(one.question) for one in unanswered)))
    pairs = list(dict.fromkeys((one.a, one.b) for one in unanswered))
    every = len(pairs) == len(list(itertools.combinations(engines, 2)))
    between = sentences.listed([f"between {ENGINE_SHORT[a]} and {ENGINE_SHORT[b]}" for a, b in pairs])
    return f"No answer on {_joined(nouns, '' if every else between)}: {_why(unanswered[0])}; {_remedy(most)}."


def _why(one: Open) -> str:
    names = " or ".join(ENGINE_SHORT[engine] for engine in one.engines)
    detail = f" ({one.detail.rstrip('.')})" if one.detail else ""
    if one.because == "near" and one.ratio:
        times = _interval(one.ratio) or times_text(one.ratio.value)
        return f"{ENGINE_SHORT[one.b]}'s is {times} times {ENGINE_SHORT[one.a]}'s"
    return {
        "disturbed": f"no run of {names} was undisturbed{detail}",
        "invalid": f"no run of {names} is VALID{detail}",
        "late": f"the load generator sent too late for this figure in runs of {names}",
        "answers": f"a run of {names} has too few answers for it",
        "runs": f"fewer than two runs of {names} have this figure{detail}",
        "alike": "the runs of each engine are all alike, so that chance cannot be judged",
    }.get(one.because, "the runs scatter too much to say")


_REMEDIES: Final[dict[Because, str]] = {
    "disturbed": "run the study on a machine that does less else",
    "invalid": "the table under Validity has the reasons",
    "late": "give the generator a core of its own, or use a quieter machine",
    "runs": "at least two of each are needed, so raise repetitions or budget in the plan",
    "alike": "more runs may differ",
}


def _remedy(one: Open) -> str:
    if one.because == "answers":
        return f"load each run for at least {one.load_s} s" if one.load_s else "load each run for longer"
    if one.because in _REMEDIES:
        return _REMEDIES[one.because]
    more = advice(one.runs_more, one.minutes_more, one.paired, one.leaves_one_out)
    return f"{more}, so use a quieter machine or longer runs" if one.runs_more is None else more


_ALONE: Final = (
    ("steady.p50", "answers in {} under steady load (p50)"),
    ("steady.p99", "has a p99 of {} there"),
    ("bursty.p99", "has a p99 of {} in bursty load"),
    ("coldstart.total_s", "starts in {}"),
)


def _alone(results: Results) -> list[str]:
    """What one engine does, in a sentence: there is nothing to compare it with."""
    if len(results.engines) > 1:
        return sentences.summary(results)[:1]
    engine = results.engines[0]
    facts = [
        ("steady.p50", "answers in {} under steady load (p50)"),
        ("steady.p99", "has a p99 of {} under steady load"),
    ]
    facts += [("bursty.p99", "has a p99 of {} in bursty load"), ("coldstart.total_s", "starts in {}")]
    clauses = []
    for key, text in facts:
        metric = results.metric(key)
        value = metric.quotable().get(engine) if metric else None
        if metric and value is not None:
            clauses.append(text.format(number(value, sentences.unit_of(results, metric))))
    return [f"{ENGINE_SHORT[engine]} {_series(clauses)}."] if clauses else []


def _nothing(results: Results) -> str:
    if any(run.counts for run in results.runs):
        return "No answer: the plan asks no question that has a verdict; the results are below."
    return "No answer: no run of the study counts; the table under Validity has the reasons."
