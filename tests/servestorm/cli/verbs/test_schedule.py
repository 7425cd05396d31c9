"""`servestorm schedule` tells what a load would look like."""

import re

import pytest

from servestorm.cli.main import main


def test_statistics_and_a_drawing_are_printed(capsys):
    assert main(["schedule", "--arrivals", "on-off", "--rate", "20", "--peak-rate", "200", "--seed", "3"]) == 0
    output = capsys.readouterr().out
    assert "on-off, peak_rate 200.0, on_s 2.0, off_s 4.0, seed 3" in output
    for label in ("rate, requests/s", "coefficient of variation", "index of dispersion", "peak over mean"):
        assert label in output
    assert "█" in output


def test_the_same_seed_draws_the_same(capsys):
    main(["schedule", "--seed", "1"])
    first = capsys.readouterr().out
    main(["schedule", "--seed", "1"])
    assert capsys.readouterr().out == first
    main(["schedule", "--seed", "2"])
    assert capsys.readouterr().out != first


def test_how_a_trace_is_read_is_printed(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("0.0\n0.5\n1.25\n2.0\n")
    assert main(["schedule", "--arrivals", "trace", "--trace", str(tmp_path / "t.csv"), "--duration", "10"]) == 0
    output = capsys.readouterr().out
    assert "t.csv is read as timestamps-s (detected; --trace-format names another): arrivals in seconds" in output
    assert "format timestamps-s, column 1, detected True, seed 0" in output
    assert re.search(r"^arrivals +4$", output, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rate", "0"], "the rate must be over 0"),
        (["--arrivals", "mmpp"], "an MMPP needs at least 2 states"),
        (["--arrivals", "trace", "--trace", "none.csv"], "cannot be read"),
        (["--rate", "0.001", "--duration", "1"], "has no arrival in 1 s"),
    ],
)
def test_a_schedule_that_cannot_be_made_is_refused_in_one_sentence(arguments, sentence, capsys):
    assert main(["schedule", *arguments]) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1
