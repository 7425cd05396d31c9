"""The figures that a plan may have objectives on are the ones that its results have."""

import pytest

from servestorm.analysis.results import compute
from servestorm.analysis.row_keys import keys_of, refuse_unknown_metrics
from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES
from servestorm.errors import StudyError
from servestorm.plan.study_plan import parse_plan
from servestorm.rundir.record import read_run
from tests.stand_ins.synthetic_run import make_run


def test_every_row_of_a_run_is_a_figure_of_its_plan_and_of_any_study(tmp_path):
    run = make_run(tmp_path)
    plan = parse_plan((run / "plan.yaml").read_text(), "plan.yaml")
    rows = [metric.key for metric in compute(read_run(run)).metrics]
    assert rows and set(rows) <= set(keys_of(plan))
    refuse_unknown_metrics(rows)


CLUSTER = "name: a\nengines: [savedmodel]\nbackend: kubernetes\n"


def test_a_pod_s_phases_are_figures_of_a_cluster(tmp_path):
    keys = keys_of(parse_plan(CLUSTER + "cold_starts: 3\nserver_warmup: [true, false]\n", "p"))
    assert {"coldstart.scheduled_s", "coldstart[without warm-up].scheduled_s"} <= set(keys)
    refuse_unknown_metrics(["coldstart[without warm-up].scheduled_s"])


def test_only_what_the_plan_asks_for_has_figures():
    plan = parse_plan("name: a\nengines: [savedmodel]\ncold_starts: 0\nsteady: {rate_per_s: 1, duration_s: 9}\n", "p")
    assert {key.partition(".")[0] for key in keys_of(plan)} == {"steady"}


@pytest.mark.parametrize("scenario", SCENARIO_ANALYSES)
def test_a_slip_in_any_scenario_s_figure_is_refused(scenario):
    with pytest.raises(StudyError, match="is no figure of any study"):
        refuse_unknown_metrics([f"{scenario}.slip"])
