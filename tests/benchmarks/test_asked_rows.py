"""What the campaign of version changes makes of an answer: whose rows it has, and of which version."""

import pytest

from tests.source_tree import ROOT

WHILE_THERE, AFTERWARDS = (2.0, 3.0), (10.0, 11.0)
RIGHT = [323.0, 339.0]
"""Version 3's answer to the two rows of prediction 5: 16 * 20 and 16 * 21."""


@pytest.fixture
def asked_rows(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "faults"))
    import asked_rows

    return asked_rows


@pytest.mark.parametrize(
    ("status", "values", "between_s", "verdict"),
    [
        ("200", RIGHT, WHILE_THERE, "right"),
        ("OK", RIGHT, WHILE_THERE, "right"),
        ("200", RIGHT, AFTERWARDS, "absent version"),
        ("200", [324.0, 340.0], WHILE_THERE, "absent version"),
        ("200", [323.0, 340.0], WHILE_THERE, "another's"),
        ("200", [323.0], WHILE_THERE, "another's"),
        ("200", [], WHILE_THERE, "another's"),
        ("200", [float("nan")], WHILE_THERE, "another's"),
        ("200", [387.0, 403.0], WHILE_THERE, "another's"),
        ("", [], WHILE_THERE, "unanswered"),
        ("404", [], WHILE_THERE, "status"),
        ("500", [], WHILE_THERE, "status"),
        ("INTERNAL", [], WHILE_THERE, "status"),
    ],
)
def test_an_answer_is_right_or_says_what_is_wrong(asked_rows, status, values, between_s, verdict):
    presence = {3: [asked_rows.Presence(0.0, 1.0, 8.0, 9.0)]}
    assert asked_rows.Asked(5, 2).values() == [320.0, 336.0]
    assert asked_rows.judge(asked_rows.Asked(5, 2), status, values, presence, between_s) == verdict


@pytest.mark.parametrize(
    ("version", "by_label", "between_s", "verdict"),
    [
        (3, False, WHILE_THERE, "status"),
        (3, False, (0.5, 3.0), "not served"),
        (3, False, (2.0, 8.5), "not served"),
        (4, False, WHILE_THERE, "not served"),
        (None, True, WHILE_THERE, "not served"),
    ],
)
def test_only_what_may_be_absent_may_be_refused(asked_rows, version, by_label, between_s, verdict):
    presence = {3: [asked_rows.Presence(0.0, 1.0, 8.0, 9.0)]}
    asked = asked_rows.Asked(5, 2, version, by_label)
    assert asked_rows.judge(asked, "404", [], presence, between_s) == verdict


def test_an_answer_of_another_version_than_was_asked_for_is_not_right(asked_rows):
    presence = {3: [asked_rows.Presence(0.0, 1.0)], 4: [asked_rows.Presence(0.0, 1.0)]}
    asked = asked_rows.Asked(5, 2, version=4)
    assert asked_rows.judge(asked, "200", RIGHT, presence, WHILE_THERE) == "absent version"
