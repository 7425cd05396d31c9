"""Progress: the time left comes from what steps really took."""

from __future__ import annotations

import io
from itertools import pairwise
from types import SimpleNamespace

from servestorm.study import progress
from servestorm.study.progress import Display, Outlook, ProgressStep, clock_text

STEPS = [
    ProgressStep("a", "start", 10),
    ProgressStep("b", "start", 10),
    ProgressStep("c", "load", 20),
    ProgressStep("d", "start", 20),
]


def test_before_anything_ran_the_guesses_count():
    outlook = Outlook(STEPS)
    assert outlook.left_s(0) == 60
    assert outlook.done(0) == 0


def test_a_kind_that_took_twice_its_guess_is_expected_to_do_so_again():
    outlook = Outlook(STEPS)
    outlook.begin(0)
    outlook.end(20)
    assert outlook.left_s(20) == 20 + 20 + 40
    assert outlook.done(20) == 20 / 100


def test_a_step_that_tells_how_far_it_is_is_believed():
    outlook = Outlook([ProgressStep("a", "train", 100)])
    outlook.begin(0)
    outlook.report(0.5)
    assert outlook.done(10) == 0.5
    assert outlook.left_s(10) == 10


def test_a_step_that_overruns_is_never_whole_before_its_end():
    outlook = Outlook([ProgressStep("a", "x", 10)])
    outlook.begin(0)
    assert outlook.done(1000) < 1
    outlook.end(1000)
    assert (outlook.done(1000), outlook.left_s(1000)) == (1.0, 0.0)


def test_without_a_terminal_each_step_is_a_plain_line():
    stream = io.StringIO()
    with Display(STEPS[:2], stream) as display:
        for _ in range(2):
            with display.step():
                pass
    assert stream.getvalue().splitlines()[0] == "[  0%, 20 s left] a"
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_there_is_a_bar_with_the_time_left():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with Display(STEPS[:2], stream) as display:
        for _ in range(2):
            with display.step():
                display.fraction("still a", 0.4)
        display.tell("a line between")
    assert "a line between" in stream.getvalue()
    assert "left" in stream.getvalue()


def test_times_read_as_words():
    assert [clock_text(s) for s in (0.4, 59, 61, 605)] == ["0 s", "59 s", "1 min 01 s", "10 min 05 s"]


def readings(steps, lengths_s, ends_by_s=None):
    """A reading each second of a course whose steps last so long, and one after each step."""
    outlook, now_s, seen = Outlook(steps), 0, []
    if ends_by_s is not None:
        outlook.ends_by(ends_by_s)
    for length_s in lengths_s:
        outlook.begin(now_s)
        for _ in range(length_s):
            seen.append(outlook.reading(now_s))
            now_s += 1
        outlook.end(now_s)
        seen.append(outlook.reading(now_s))
    return seen


def rises(seen):
    """The readings with more seconds left than the one before, as the display words them."""
    pairs = pairwise(seen)
    return [after for before, after in pairs if after.left_s > before.left_s]


def test_the_share_that_is_done_never_falls_and_more_time_left_has_its_reason():
    steps = [ProgressStep("x", "cold start of a", 10), *[ProgressStep("y", "steady load of a", 20)] * 4]
    seen = readings(steps, (10, 60, 60, 60, 60))
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert seen[-2].done < 1 and seen[-1] == (1.0, 0.0, "")
    (rise,) = rises(seen)
    assert rise.reason == "steady load of a takes longer than expected"
    assert rise.left_s == 3 * 60
    assert [one for one in seen if one.reason] == [rise]


def test_a_repeated_load_slows_the_share_down_and_does_not_take_it_back():
    steps = [ProgressStep("y", "steady load of a", 20)] * 5
    seen = readings(steps, (20, 40, 20, 20, 20))
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert {one.reason for one in rises(seen)} == {"steady load of a takes longer than expected"}


def test_a_small_rise_of_the_time_left_is_not_shown():
    assert rises(readings([ProgressStep("y", "steady load of a", 100)] * 5, (102, 101, 103, 100, 101))) == []


def test_rounds_that_a_budget_leaves_out_are_not_waited_for_and_the_others_are():
    certain, optional = ProgressStep("x", "a", 10), ProgressStep("y", "b", 10, optional=True)
    outlook = Outlook([certain, optional, optional, certain])
    outlook.ends_by(25)
    assert outlook.left_s(0) == 25
    outlook.begin(0)
    outlook.end(40)
    assert outlook.left_s(40) == 40, "the last step is run whatever the time; the optional ones are over with it"
    assert outlook.done(40) < 1


def test_a_reason_is_written_beside_the_time_left(monkeypatch):
    stream, clock = io.StringIO(), iter([0, 0, 50, 50, 50, 60])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with Display([ProgressStep("one", "steady load", 10), ProgressStep("two", "steady load", 10)], stream) as display:
        for _ in range(2):
            with display.step():
                pass
    assert stream.getvalue().splitlines() == [
        "[  0%, 20 s left] one",
        "[ 50%, 50 s left: steady load takes longer than expected] two",
    ]
