"""`servestorm schedule` tells what a load would look like."""

import os
import re
import subprocess
import sys

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
        (["--arrivals", "trace", "--trace", ""], "--trace is empty: give a value, or leave it out."),
        (["--rate", "1e-9", "--duration", "1"], "has no arrival in 1 s"),
        (["--arrivals", "trace"], "--arrivals trace needs --trace FILE."),
        (["--seed", "-1"], "--seed must be 0 or more, not -1"),
        (["--duration", "1e300", "--rate", "1e-300"], "--duration must be 31,622,400 seconds or less, not 1e+300"),
        (["--arrivals", "gamma", "--cv", "1e-300"], "the coefficient of variation must be 0.001 or more"),
        (
            ["--arrivals", "mmpp", "--mmpp-rates", "10,20", "--mmpp-dwells", "1e-300,1"],
            "the MMPP dwell time of 1e-300 s would come over 1,000,000 times in 30 s",
        ),
        (
            ["--arrivals", "on-off", "--on", "1e-12", "--off", "1e-12"],
            "the on and off times of 2e-12 s would come over 1,000,000 times",
        ),
        (["--arrivals", "on-off", "--rate", "1e300", "--peak-rate", "1"], "are over 200,000,000 arrivals"),
        (["--arrivals", "diurnal", "--period", "1e-300"], "the period of 1e-300 s would come over 10,000 times"),
    ],
)
def test_a_schedule_that_cannot_be_made_is_refused_in_one_sentence(arguments, sentence, capsys):
    assert main(["schedule", *arguments]) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1


def test_a_spike_that_outlasts_the_load_ends_with_it(capsys):
    spike = ["schedule", "--arrivals", "spike", "--rate", "10", "--spike-width"]
    assert main([*spike, "1.7e308"]) == main([*spike, "30"]) == 0
    first, second = re.findall(r"arrivals +([\d,]+)$", capsys.readouterr().out, re.MULTILINE)
    assert first == second


def test_a_terminal_without_the_characters_of_the_plot_gets_others():
    done = subprocess.run(
        [sys.executable, "-m", "servestorm", "schedule"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?????" in done.stdout
