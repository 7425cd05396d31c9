"""Progress: the time left comes from what steps really took."""

from __future__ import annotations

import io

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
