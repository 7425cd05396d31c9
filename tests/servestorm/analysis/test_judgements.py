"""Which runs of a study are judged against each other, at which looks, and what more of them would take."""

from __future__ import annotations

import json

import numpy as np
import pytest

from servestorm.analysis.judgements import QUESTIONS
from servestorm.analysis.results import compute
from servestorm.analysis.round_time import round_seconds
from servestorm.errors import StudyError
from servestorm.methods.group_sequential import nominal_level
from servestorm.methods.verdict import verdict
from servestorm.rundir.record import read_run
from tests.stand_ins.synthetic_run import make_run, write_samples

PAIRED = ("steady.p50", "steady.p99", "steady.cpu_ms_per_image", "bursty.p50", "bursty.p99")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def design(run, name, **changes):
    plan = json.loads((run / "study.json").read_text())["plan"]
    edit(run / "study.json", plan={**plan, "design": name}, **changes)
    return run


def judged(run):
    return {judgement.metric: judgement.verdict for judgement in compute(read_run(run)).verdicts}


def cells(run, scenario, engine):
    return sorted((run / "cells").glob(f"*-{scenario}-{engine}-*"))


@pytest.fixture
def interleaved(tmp_path):
    return design(make_run(tmp_path), "interleaved")


def test_runs_of_a_round_are_judged_in_pairs_where_the_engines_took_turns(interleaved):
    found = judged(interleaved)
    assert {metric for metric, one in found.items() if one.paired} == set(PAIRED)
    assert found["steady.p50"].rounds == 3
    values = compute(read_run(interleaved)).metric("steady.p50").values
    a, b = values["savedmodel"], values["torchserve"]
    assert (a.rounds, b.rounds) == ([1, 2, 3], [1, 2, 3])
    assert found["steady.p50"].ratio == pytest.approx(b.value / a.value)
    # cold starts run one after another, in no pairs
    assert (found["coldstart.total_s"].paired, found["coldstart.total_s"].rounds) == (False, None)


def test_a_pair_is_of_one_round_whatever_the_order_of_the_runs(interleaved):
    values = compute(read_run(interleaved)).metric("steady.p50").values
    a, b = values["savedmodel"], values["torchserve"]
    own = verdict(a.runs, b.runs, "lower", rounds=(a.rounds, b.rounds))
    assert judged(interleaved)["steady.p50"].ratio_ci == own.ratio_ci


@pytest.mark.parametrize("name", ["blocks", None])
def test_runs_of_blocks_and_of_older_run_directories_are_independent(tmp_path, name):
    run = make_run(tmp_path)
    plan = json.loads((run / "study.json").read_text())["plan"]
    plan.pop("design", None)
    edit(run / "study.json", plan=plan if name is None else {**plan, "design": name})
    assert not any(one.paired for one in judged(run).values())


def test_a_load_from_the_cluster_has_no_rounds(interleaved):
    study = read_run(interleaved).study
    assert study.plan.interleaved
    for changed in ({"load_from": "cluster"}, {"engines": ["savedmodel"]}, {"design": "blocks"}):
        assert not study.plan.model_copy(update=changed).interleaved


def test_a_round_with_a_number_on_one_side_only_is_left_out_and_named(interleaved):
    folder = cells(interleaved, "steady", "savedmodel")[1]
    edit(folder / "summary.json", valid=False, reasons=["5 % of the requests were not sent"])
    results = compute(read_run(interleaved))
    (one,) = [judgement for judgement in results.verdicts if judgement.metric == "steady.p50"]
    assert (one.verdict.n_a, one.verdict.n_b, one.verdict.rounds) == (2, 2, 2)
    values = results.metric("steady.p50").values
    assert (values["savedmodel"].rounds, values["torchserve"].rounds) == ([1, 3], [1, 2, 3])
    torchserve = values["torchserve"].runs
    assert one.verdict.mean_b == pytest.approx(np.mean([torchserve[0], torchserve[2]]))
    assert ", from 2 of 3 rounds: " in one.verdict.reason


def test_looks_of_the_study_make_the_levels_stricter(interleaved):
    before = judged(interleaved)
    after = judged(design(interleaved, "interleaved", looks={"steady": [0.25, 0.5]}))
    assert after["steady.p50"].confidence == pytest.approx(1 - nominal_level(0.05, [0.25, 0.5]))
    assert after["steady.p50"].p_holm > before["steady.p50"].p_holm
    assert after["bursty.p50"].confidence == before["bursty.p50"].confidence == pytest.approx(0.95)


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.0], [1.2]])
def test_looks_that_were_edited_are_one_sentence(interleaved, shares):
    edit(interleaved / "study.json", looks={"steady": shares})
    with pytest.raises(StudyError, match=r"study\.json is not as servestorm wrote it \(the shares"):
        compute(read_run(interleaved))


def test_a_round_takes_as_long_as_its_runs_and_what_overlaps_counts_once(interleaved):
    for folder in cells(interleaved, "steady", "savedmodel"):
        at(folder, "00:00:00", "00:01:30")
    for folder in cells(interleaved, "steady", "torchserve"):
        at(folder, "00:00:30", "00:02:00")
    for folder in cells(interleaved, "bursty", "savedmodel"):
        at(folder, "01:00:00", "01:00:20")
    for folder in cells(interleaved, "bursty", "torchserve")[:2]:
        at(folder, "02:00:00", "02:00:40")
    record = read_run(interleaved)
    assert round_seconds(record.cells, record.study) == {
        ("steady", "savedmodel", "torchserve"): 120.0,
        ("bursty", "savedmodel", "torchserve"): 60.0,
    }


def at(folder, begin, end):
    edit(folder / "outcome.json", started_at=f"2026-01-01T{begin}+00:00", ended_at=f"2026-01-01T{end}+00:00")


def test_the_runs_that_would_tell_are_given_in_minutes_too(interleaved):
    random = np.random.default_rng(4)
    for engine in ("savedmodel", "torchserve"):
        for folder in cells(interleaved, "steady", engine):
            write_samples(folder, np.arange(800) / 70, random.uniform(0.002, 0.006) * random.uniform(0.9, 1.1, 800))
            at(folder, "00:00:00", "00:01:30")
    found = judged(interleaved)["steady.p50"]
    assert found.outcome == "inconclusive"
    assert found.minutes_more == pytest.approx(1.5 * found.runs_more)
    assert f"about {found.runs_more} more rounds (about " in found.reason
    assert judged(interleaved)["coldstart.total_s"].minutes_more is None


def test_every_question_of_a_study_is_a_member_of_one_family(interleaved):
    found = judged(interleaved)
    assert set(found) == {*PAIRED, "coldstart.total_s"} <= set(QUESTIONS)
    tested = [one for one in found.values() if one.p is not None]
    smallest = min(tested, key=lambda one: one.p)
    assert smallest.p_holm == pytest.approx(len(tested) * smallest.p)
