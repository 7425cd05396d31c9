"""A load in turns: the measured schedule as ever, cut and moved; what is due outside of the turns is warm-up."""

import argparse
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.arrivals import processes
from loadtests.arrivals.blocks import RecordedSchedule
from loadtests.arrivals.measured_time import ALWAYS, MeasuredTime
from loadtests.arrivals.turns import Turn, Turns, read_turns
from loadtests.errors import LoadTestError
from loadtests.options import options_for, read_options

NS = 1_000_000_000
SECONDS = st.integers(0, 3_000).map(lambda milliseconds: milliseconds / 1000)


@st.composite
def turns_of(draw):
    """Turns apart from each other, at least one of them with a length."""
    begin_s, turns = draw(SECONDS), []
    for _ in range(draw(st.integers(1, 6))):
        lead_s, length_s = draw(SECONDS), draw(SECONDS)
        turns.append(Turn(begin_s, lead_s, length_s))
        begin_s += lead_s + length_s + draw(SECONDS) + 0.001
    last = turns[-1]
    return Turns([*turns[:-1], last._replace(length_s=last.length_s + 0.5)])


def schedule_for(turns, seed):
    return processes.poisson(80.0, turns.duration_s, seed).whole()


@settings(max_examples=200, deadline=None)
@given(turns=turns_of(), seed=st.integers(0, 2**32))
def test_every_measured_arrival_is_the_one_without_turns_moved_with_its_turn_and_none_is_lost(turns, seed):
    schedule = schedule_for(turns, seed)
    placed = turns.place(RecordedSchedule(schedule), 50.0).whole()
    turn_of = turns.measured.interval_of(placed)
    arrivals = placed[turn_of >= 0]
    lengths = turns.measured.end_ns - turns.measured.begin_ns
    moved_back = arrivals - (turns.measured.begin_ns - (np.cumsum(lengths) - lengths))[turn_of[turn_of >= 0]]
    assert moved_back.tolist() == schedule.tolist()
    assert lengths.sum() == pytest.approx(turns.duration_s * NS, abs=1)
    assert (np.diff(placed) >= 0).all()
    assert turns.active.contains(placed).all()


@settings(max_examples=100, deadline=None)
@given(turns=turns_of(), shift_s=st.lists(SECONDS, min_size=6, max_size=6), seed=st.integers(0, 2**32))
def test_engines_with_the_same_seed_get_the_same_arrivals_in_turns_of_the_same_number(turns, shift_s, seed):
    later = np.cumsum(shift_s)
    others = Turns([turn._replace(begin_s=turn.begin_s + later[at]) for at, turn in enumerate(turns.turns)])
    in_turns = []
    for each in (turns, others):
        placed = each.place(RecordedSchedule(schedule_for(each, seed)), 50.0).whole()
        number = each.measured.interval_of(placed)
        in_turns.append(placed[number >= 0] - each.measured.begin_ns[number[number >= 0]])
    assert in_turns[0].tolist() == in_turns[1].tolist()


def test_a_lead_in_is_filled_at_the_constant_rate_and_a_turn_without_a_length_is_all_warm_up():
    turns = Turns([Turn(0.0, 2.0, 0.0), Turn(3.0, 0.5, 1.0), Turn(10.0, 0.0, 1.0)])
    placed = turns.place(processes.constant(100.0, 2.0), 10.0).whole()
    lead_ins = placed[~turns.measured.contains(placed)]
    assert lead_ins.tolist() == [*range(0, 2 * NS, NS // 10), *range(3 * NS, 3 * NS + NS // 2, NS // 10)]
    assert turns.measured.begin_ns.tolist() == [3_500_000_000, 10_000_000_000]
    assert turns.measured.end_ns.tolist() == [4_500_000_000, 11_000_000_000]
    assert turns.active.within_ns(0, 20 * NS) == 4_500_000_000


@settings(max_examples=200, deadline=None)
@given(turns=turns_of(), moments=st.lists(st.integers(-NS, 40 * NS), max_size=30), start=st.integers(0, 2**60))
def test_the_interval_of_a_moment_is_the_one_that_it_lies_in(turns, moments, start):
    measured = turns.measured.started(start)
    found = measured.interval_of(np.array(moments, np.int64) + start).tolist()
    expected = [
        next((n for n, (a, b) in enumerate(zip(*_ends(turns.measured), strict=True)) if a <= moment < b), -1)
        for moment in moments
    ]
    assert found == expected


def _ends(measured):
    return measured.begin_ns.tolist(), measured.end_ns.tolist()


def test_a_load_without_turns_is_measured_from_its_warm_up_s_end_for_ever():
    measured = MeasuredTime.since(5).started(1000)
    assert measured.contains([1004, 1005, 2**63 - 2]).tolist() == [False, True, True]
    assert measured.within_ns(0, 2000) == 995
    assert ALWAYS.from_ns == 0


def write(folder, *turns):
    path = folder / "turns.json"
    path.write_text(
        json.dumps({"turns": [dict(zip(("begin_s", "lead_s", "length_s"), t, strict=True)) for t in turns]})
    )
    return path


def test_turns_are_read_from_their_file(tmp_path):
    turns = read_turns(write(tmp_path, (0, 2, 0), (7.1, 0.25, 2)))
    assert list(turns.turns) == [Turn(0.0, 2.0, 0.0), Turn(7.1, 0.25, 2.0)]
    assert turns.duration_s == 2.0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no JSON", "does not hold"),
        ("[]", "does not hold"),
        ('{"turns": [{"begin_s": 0, "lead_s": 0}]}', "does not hold"),
        ('{"turns": [{"begin_s": 0, "lead_s": -1, "length_s": 1}]}', "0 or more"),
        ('{"turns": [{"begin_s": 0, "lead_s": 0, "length_s": 1, "end_s": 1}]}', "begin_s, lead_s, length_s"),
        ('{"turns": [{"begin_s": 0, "lead_s": 2, "length_s": 0}]}', "nothing would be measured"),
        ('{"turns": []}', "nothing would be measured"),
    ],
)
def test_a_file_that_holds_no_turns_is_refused_in_one_sentence(content, sentence, tmp_path):
    (tmp_path / "turns.json").write_text(content)
    with pytest.raises(LoadTestError, match=sentence):
        read_turns(tmp_path / "turns.json")


def test_turns_that_overlap_or_are_not_there_are_refused(tmp_path):
    with pytest.raises(LoadTestError, match="turn 1 has not ended when turn 2 begins"):
        read_turns(write(tmp_path, (0, 1, 2), (2.9, 0, 1)))
    with pytest.raises(LoadTestError, match="cannot be read: No such file"):
        read_turns(tmp_path / "nothing.json")


def options(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="http://h")
    for option in options_for("constant"):
        option.add_to(parser)
    return read_options(parser.parse_args([str(argument) for argument in arguments]))


def test_turns_say_how_long_the_load_is(tmp_path):
    path = write(tmp_path, (0, 2, 0), (3, 0, 2), (6, 0, 1.0004))
    checked = options("--turns", path, "--duration", 3, "--warmup", 0)
    assert checked.capped(None) == pytest.approx(3.0004)
    with pytest.raises(LoadTestError, match="leave -t out"):
        checked.capped(2.0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--warmup", 5, "--duration", 3], "give --warmup 0"),
        (["--warmup", 0, "--duration", 3, "--closed-loop", 4], "leave --closed-loop out"),
        (["--warmup", 0, "--duration", 30], "the turns of .* are 3 s long"),
    ],
)
def test_what_does_not_go_with_turns_is_refused(arguments, sentence, tmp_path):
    path = write(tmp_path, (0, 0, 3))
    with pytest.raises(LoadTestError, match=sentence):
        options("--turns", path, *arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--give-up-in-flight", 4, "--closed-loop", 4], "is for an open loop"),
        (["--give-up-in-flight", 40, "--max-in-flight", 30], "40 would never come: 30 requests"),
        (["--give-up-in-flight", -1], "must be 0 or more"),
    ],
)
def test_a_give_up_that_cannot_come_is_refused(arguments, sentence):
    with pytest.raises(LoadTestError, match=sentence):
        options(*arguments)
