"""DISTURBED numbers are marked wherever they stand, and no page, table or sentence names a winner among them."""

from __future__ import annotations

import json

import pytest

from servestorm.report import sentences
from servestorm.report.markdown import markdown
from servestorm.report.page import page_of
from servestorm.report.terminal import print_results
from servestorm.report.write import write_report
from tests.stand_ins.synthetic_run import make_run

WATCH = {"elapsed_s": 10.0, "cores": [0, 1], "ours_s": 4.0, "other_s": 14.8, "steal_s": 0.0}
REASON = "other programs used 74 % of the study's cores"
MARK = '<span class="badge warn">DISTURBED</span>'


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Results and report.html of a study whose steady and bursty loads on TorchServe were all disturbed."""
    run = make_run(tmp_path_factory.mktemp("runs"))
    for folder in [*run.glob("cells/*-steady-torchserve-*"), *run.glob("cells/*-bursty-torchserve-*")]:
        use = json.loads((folder / "use.json").read_text())
        (folder / "use.json").write_text(json.dumps({**use, "watch": WATCH}))
    results, path = write_report(run)
    return results, path.read_text()


def test_numbers_of_disturbed_runs_alone_are_marked_wherever_they_stand(drawn):
    results, html = drawn
    values = [m.values["torchserve"] for m in results.metrics if m.scenario in ("steady", "bursty")]
    cards, runs = 3, 6
    assert html.count(MARK) == sum(value.value is not None for value in values) + cards + runs
    assert '<span class="badge warn">6 of 26 runs DISTURBED</span>' in html
    assert "load runs VALID</span>" not in html
    assert "DISTURBED runs only: TorchServe." in html


def test_the_summary_says_why_there_is_no_verdict(drawn):
    results, html = drawn
    first = sentences.summary(results)[0]
    assert first == f"Steady load: no verdict, for every run of TorchServe was disturbed ({REASON})."
    assert REASON.replace("'", "&#39;") in html
    assert sentences.better(results, results.metric("steady.p50")) is None
    assert sentences.better(results, results.metric("coldstart.total_s")) == "savedmodel"
    assert not any("better" in sentence for sentence in sentences.summary(results) if "steady" in sentence.lower())


def test_markdown_and_terminal_mark_them_too(drawn, capsys):
    results, _ = drawn
    text = markdown(page_of(results))
    assert "| DISTURBED 11" in text
    assert "no verdict (disturbed)" in text
    assert f"DISTURBED: {REASON}" in text
    print_results(results)
    shown = capsys.readouterr().out
    assert "DISTURBED 11" in shown
    assert "6 of 26 runs are DISTURBED" in shown


def test_the_sentence_on_validity_counts_them(drawn):
    results, _ = drawn
    assert "6 of 26 runs are DISTURBED" in sentences.validity(results)


def test_cold_starts_on_a_disturbed_machine_have_no_winner_either(tmp_path):
    run = make_run(tmp_path)
    for folder in run.glob("cells/*-coldstart-torchserve-*"):
        use = json.loads((folder / "use.json").read_text())
        (folder / "use.json").write_text(json.dumps({**use, "watch": WATCH}))
    results, path = write_report(run)
    html = path.read_text()
    assert sentences.better(results, results.metric("coldstart.total_s")) is None
    assert f"Cold start: no verdict, for every run of TorchServe was disturbed ({REASON})." in sentences.summary(
        results
    )
    assert "DISTURBED runs only: TorchServe. Mean seconds of each phase" in html
    assert "Only runs that do not count (Cold start on TorchServe: DISTURBED)." in html
