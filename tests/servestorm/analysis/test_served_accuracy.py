"""The accuracy under load: the export's, less the answers that were not the export's."""

from __future__ import annotations

import json

import pytest

from servestorm.analysis.results import compute
from servestorm.methods.percentiles import share_interval
from servestorm.rundir.record import read_run
from tests.stand_ins.synthetic_run import make_run


def change_loads(run, engine, **fields):
    """Write fields into the summary of each load of an engine; how many there were."""
    changed = 0
    for path in run.glob(f"cells/*-{engine}-*/summary.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
        changed += 1
    return changed


def found(run):
    return {one.engine: one for one in compute(read_run(run)).figures.accuracy}


def test_an_answer_that_is_not_the_exports_is_no_right_one(tmp_path):
    run = make_run(tmp_path)
    loads = change_loads(run, "torchserve", ok=900, wrong_answers=100)
    one = found(run)
    assert (one["torchserve"].answers, one["torchserve"].wrong) == (1000 * loads, 100 * loads)
    assert one["torchserve"].top1_percent == pytest.approx(97.8 * 0.9)
    assert one["savedmodel"].wrong == 0 and one["savedmodel"].top1_percent == pytest.approx(97.8)
    low, high = one["savedmodel"].top1_percent_ci
    assert low < 97.8 < high


def test_unchecked_answers_say_nothing(tmp_path):
    run = make_run(tmp_path)
    change_loads(run, "torchserve", answers="unchecked")
    assert set(found(run)) == {"savedmodel"}


def test_without_the_exports_accuracy_there_is_none_under_load(tmp_path):
    assert found(make_run(tmp_path, parity="NOT PROVED EQUAL")) == {}


@pytest.mark.parametrize(
    ("hits", "size", "ends"), [(0, 10, (0, 0.2775)), (10, 10, (0.7225, 1)), (50, 100, (0.4038, 0.5962))]
)
def test_the_interval_of_a_share_is_wilsons(hits, size, ends):
    assert share_interval(hits, size) == pytest.approx(ends, abs=2e-4)
