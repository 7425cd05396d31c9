"""The page says of how many slices the figures are, which are left out and why, and why a study ended early."""

from __future__ import annotations

from dataclasses import replace

import pytest

from servestorm.analysis.results import Results, compute
from servestorm.analysis.slice_totals import slice_totals
from servestorm.methods.slices import SliceCount
from servestorm.report import result_table, sentences
from servestorm.report.html_page import render
from servestorm.report.markdown import markdown
from servestorm.report.page import page_of
from servestorm.rundir.record import read_run
from tests.stand_ins.synthetic_run import make_run

ROW = ["Steady load: TorchServe, slices of 2.00 s", "18", "12", "3", "3", "p99: 2", "p99 in 1 of 3 runs"]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    """A study whose steady runs on TorchServe leave slices out; all other runs leave out none."""
    results = compute(read_run(make_run(tmp_path_factory.mktemp("runs"))))
    counted = SliceCount(planned=6, length_s=2.0, disturbed=1, undrained=1, late={})
    late = iter(({"p99": 1}, {"p99": 1}, {}))
    runs = [
        replace(run, slices=replace(counted, late=next(late)))
        if (run.group, run.engine) == ("steady", "torchserve")
        else run
        for run in results.runs
    ]
    last = max(place for place, run in enumerate(runs) if (run.group, run.engine) == ("steady", "torchserve"))
    runs[last] = replace(runs[last], invalid_figures={"p99": "the load generator sent late in too many slices"})
    return replace(results, runs=runs)


def test_totals_are_of_all_runs_of_an_engine(results):
    (total,) = [one for one in slice_totals(results.runs) if (one.group, one.engine) == ("steady", "torchserve")]
    assert (total.planned, total.counted, total.disturbed, total.undrained) == (18, 12, 3, 3)
    assert (total.late, total.invalid, total.runs) == ({"p99": 2}, {"p99": 1}, 3)


def test_slices_that_are_most_of_a_run_are_named_and_count(results):
    most = SliceCount(planned=6, length_s=1.0, disturbed=0, undrained=5, late={})
    (total,) = slice_totals([replace(results.runs[0], slices=most)])
    assert (total.undrained, total.counted) == (5, 6)


def test_the_table_of_slices_says_how_many_count_and_why_others_do_not(results):
    table = result_table.slices(results)
    assert ROW in table.rows
    assert {len(row) for row in table.rows} == {len(table.head)}
    page = page_of(results)
    assert f"| {' | '.join(ROW)} |" in markdown(page)
    assert f'<th scope="row">{ROW[0]}</th><td>18</td><td>12</td><td>3</td><td>3</td><td>p99: 2</td>' in render(page)


def test_runs_without_slices_have_no_such_table(results):
    bare = replace(results, runs=[replace(run, slices=None) for run in results.runs])
    assert result_table.slices(bare) is None
    assert "Slices of the load" not in render(page_of(bare)) + markdown(page_of(bare))


def test_a_run_names_its_invalid_figures(results):
    told = [row.reasons for row in result_table.runs(results).rows if row.reasons]
    assert told == [["p99 is INVALID: the load generator sent late in too many slices"]]


def with_looks(results: Results, **changes) -> Results:
    looks = {"steady": [0.5, 0.75]}
    return replace(results, study=results.study.model_copy(update={"looks": looks, **changes}))


def test_a_study_that_stopped_early_says_after_how_many_rounds_and_why(results):
    text = "Steady load stopped after 3 rounds, because every question was decided (judged 2 times on the way)."
    assert text in sentences.validity(with_looks(results))
    whole = replace(results, study=results.study.model_copy(update={"looks": {"steady": [0.5, 1.0]}}))
    assert "Steady load ran for all of its time, 3 rounds (judged 2 times on the way)." in sentences.validity(whole)
    assert "judged" not in sentences.validity(results)


def test_a_study_that_was_interrupted_did_not_stop_because_it_was_decided(results):
    stopped = with_looks(results)
    study = stopped.study.model_copy(update={"state": "interrupted"})
    interrupted = replace(stopped, state="interrupted", study=study)
    assert "every question was decided" not in sentences.validity(interrupted)
