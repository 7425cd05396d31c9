"""The questions without an answer in words: why there is none, and what to do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from servestorm.analysis.headline import Because, Open
from servestorm.methods.reasons import advice
from servestorm.plan.labels import ENGINE_SHORT, times_text
from servestorm.report import sentences
from servestorm.report.question_words import interval_text, noun_of


def open_texts(unanswered: Sequence[Open], engines: Sequence[str]) -> list[str]:
    """A sentence for the questions that are open for the same reason."""
    alike: dict[tuple[object, ...], list[Open]] = {}
    for one in unanswered:
        own = (one.question, one.a, one.b) if one.because == "near" else None
        alike.setdefault((one.because, tuple(one.engines), one.detail, own, one.runs_more is None), []).append(one)
    return [_open_text(own, engines) for own in alike.values()]


def _open_text(unanswered: Sequence[Open], engines: Sequence[str]) -> str:
    """'No answer on p99 under steady load: the runs scatter too much to say; about 14 more runs of each would tell.'"""
    most = max(unanswered, key=lambda one: one.runs_more or 0)
    nouns = sentences.listed(list(dict.fromkeys(noun_of(one.question) for one in unanswered)))
    pairs = list(dict.fromkeys((one.a, one.b) for one in unanswered))
    every = len(pairs) == len(list(itertools.combinations(engines, 2)))
    between = sentences.listed([f"between {ENGINE_SHORT[a]} and {ENGINE_SHORT[b]}" for a, b in pairs])
    return f"No answer on {nouns if every else f'{nouns} {between}'}: {_why(unanswered[0])}; {_remedy(most)}."


def _why(one: Open) -> str:
    names = " or ".join(ENGINE_SHORT[engine] for engine in one.engines)
    detail = f" ({one.detail.rstrip('.')})" if one.detail else ""
    if one.because == "near" and one.ratio:
        times = interval_text(one.ratio) or times_text(one.ratio.value)
        return f"{ENGINE_SHORT[one.b]}'s is {times} times {ENGINE_SHORT[one.a]}'s"
    return {
        "disturbed": f"no run of {names} was undisturbed{detail}",
        "invalid": f"no run of {names} is VALID{detail}",
        "late": f"the load generator sent too late for this figure in runs of {names}",
        "answers": f"a run of {names} has too few answers for it",
        "runs": f"fewer than two runs of {names} have this figure{detail}",
        "estimate": f"the probes of {names} came not near enough to it",
        "alike": "the runs of each engine are all alike, so that chance cannot be judged",
    }.get(one.because, "the runs scatter too much to say")


_REMEDIES: Final[dict[Because, str]] = {
    "disturbed": "run the study on a machine that does less else",
    "invalid": "the table under Validity has the reasons",
    "late": "give the generator a core of its own, or use a quieter machine",
    "runs": "at least two of each are needed, so raise repetitions or budget in the plan",
    "estimate": "search with more or longer probes, or another p99_ms",
    "alike": "more runs may differ",
}


def _remedy(one: Open) -> str:
    if one.because == "answers":
        return f"load each run for at least {one.load_s} s" if one.load_s else "load each run for longer"
    if one.because in _REMEDIES:
        return _REMEDIES[one.because]
    more = advice(one.runs_more, one.minutes_more, one.paired, one.leaves_one_out)
    return f"{more}, so use a quieter machine or longer runs" if one.runs_more is None else more
