"""The plain form of papers, from a run directory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from servestorm.analysis.results import compute
from servestorm.cli import main
from servestorm.rundir.record import read_run
from tests.stand_ins.synthetic_run import make_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"))


def test_the_plain_form_is_of_three_runs_each_without_correction(whole, capsys):
    assert main.main(["report", str(whole), "--paper"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if "Cold start: server start" in line]
    runs = compute(read_run(whole)).metric("coldstart.total_s").values
    a, b = (runs[engine].runs[:3] for engine in ("savedmodel", "torchserve"))
    assert len(runs["savedmodel"].runs) == 5
    assert f"savedmodel {np.mean(a):.2f} ± {np.std(a, ddof=1):.2f} (n = 3)" in row
    assert f"TorchServe {np.mean(b):.2f} ± {np.std(b, ddof=1):.2f} (n = 3)" in row
    t = -ttest_ind(a, b, equal_var=False).statistic
    assert f"{t:.1f}" in row
    assert "| yes" in row


def test_without_the_option_there_is_no_plain_form(whole, capsys):
    assert main.main(["report", str(whole)]) == 0
    assert "Plain comparison" not in capsys.readouterr().out
