"""What an autoscaler did, from events and samples that leave no doubt about it; what it cost; and how a cell is run."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from servestorm.analysis.cost import Instance, Prices, fleet_costs, replica_usd_per_hour
from servestorm.analysis.replicas_over_time import replicas_over_time
from servestorm.analysis.results import compute
from servestorm.analysis.scenario import GroupOfRuns
from servestorm.errors import StudyError
from servestorm.methods.autoscaling import Shape, autoscaled, numbers_of
from servestorm.methods.bursts import LoadSamples, bursts
from servestorm.plan.cells import cells_of
from servestorm.plan.study_plan import parse_plan
from servestorm.report.write import write_report
from servestorm.rundir.record import read_run
from servestorm.rundir.samples import read_samples
from servestorm.rundir.shapes.cell import EventFile
from servestorm.study import runner, scraper
from servestorm.study.backend_choice import BackendChoice
from servestorm.study.expected_time import expected_s
from serving.backend import AutoscalerOrder
from serving.backends.process import ProcessBackend
from tests.source_tree import ROOT
from tests.stand_ins.autoscaling_run import DECISION_S, DOWN_S, END_S, PLAN, START_S, event, make_scaled_run
from tests.stand_ins.made_up_machine import MadeUpMachine
from tests.stand_ins.synthetic_run import START_NS
from tests.stand_ins.toy_engine import toy_engines, toy_generator, toy_plan, write_toy_model

SHAPE = {"on_s": 20.0, "off_s": 20.0, "duration_s": 90.0}
ASKED = Shape(min_replicas=1, objective_ms=50.0, duration_s=90.0, cooldown_s=60.0)
FIRST = [event("spawned", -60, 0), event("ready", -50, 0), event("load_started", -2)]
LAST = [event("load_ended", 91), event("cooldown_ended", 151)]
UP = [
    event("hpa_scaled", 30, detail="1 -> 3"),
    event("spawned", 31, 1),
    event("spawned", 31, 2),
    event("ready", 36, 1),
    event("ready", 38, 2),
]
DOWN = [
    event("hpa_scaled", 100, detail="3 -> 2"),
    event("terminating", 100.5, 2),
    event("stopped", 105, 2),
    event("hpa_scaled", 115, detail="2 -> 1"),
    event("terminating", 116, 1),
    event("stopped", 121, 1),
]


def every_tenth(late=(), failed=()) -> LoadSamples:
    """Ten requests a second; those due within a span (begin, end) of `late` or `failed`, ends included, are so."""
    tenths = np.arange(900)

    def within(spans):
        return np.any([(tenths >= round(10 * b)) & (tenths <= round(10 * e)) for b, e in spans], axis=0) & (tenths >= 0)

    scheduled_ns = tenths.astype(np.int64) * 100_000_000
    done_ns = scheduled_ns + np.where(within([*late, (-1, -1)]), 200_000_000, 5_000_000)
    return LoadSamples(scheduled_ns, done_ns, ~within([*failed, (-1, -1)]), start_ns=0)


def told(events, load=None, shape=ASKED):
    """What is found in these events, over the two bursts at 20 to 40 s and 60 to 80 s."""
    load = load or every_tenth()
    return autoscaled(
        [EventFile(**event) for event in events], load, START_NS, bursts(load, **SHAPE, objective_ms=50.0), shape
    )


def test_a_burst_is_followed_by_a_decision_and_by_replicas_that_are_ready():
    first, second = told([*FIRST, *UP, *LAST]).reactions
    assert (first.ready, first.target) == (1, 3)
    assert (first.decision_s, first.first_ready_s, first.last_ready_s) == (10, 16, 18)
    assert (second.start_s, second.ready, second.target) == (60, 3, None)
    assert (second.decision_s, second.first_ready_s, second.last_ready_s) == (None, None, None)


def test_the_order_of_events_is_that_of_their_times():
    assert told([*FIRST, *reversed([*UP, *DOWN]), *LAST]) == told([*FIRST, *UP, *DOWN, *LAST])


def test_what_a_burst_set_off_is_its_own_though_the_next_one_has_begun():
    late = [event("hpa_scaled", 55, detail="1 -> 2"), event("spawned", 56, 1), event("ready", 70, 1)]
    first, second = told([*FIRST, *late, *LAST]).reactions
    assert (first.decision_s, first.first_ready_s, first.last_ready_s) == (35, 50, 50)
    assert (second.ready, second.target, second.first_ready_s) == (1, None, None)


def test_a_replica_that_is_never_ready_leaves_the_last_one_unseen():
    found = told([*FIRST, *UP[:-1], *LAST])
    assert (found.reactions[0].first_ready_s, found.reactions[0].last_ready_s) == (16, None)
    numbers = numbers_of(found)
    assert (numbers["ready_s"], numbers["all_ready_s"]) == (16, None)


def test_the_way_down_runs_from_the_last_bursts_end_to_each_of_its_steps():
    down = told([*FIRST, *UP, *LAST, *DOWN]).down
    assert (down.decision_s, down.least_s, down.gone_s) == (20, 35, 41)


def test_a_replica_that_takes_anothers_place_later_on_makes_the_way_down_no_longer():
    replaced = [event("stopped", 130, 0), event("spawned", 130, 3), event("ready", 135, 3)]
    assert told([*FIRST, *UP, *LAST, *DOWN, *replaced]).down.gone_s == 41


def test_replicas_that_outlive_the_watching_were_not_seen_to_go():
    down = told([*FIRST, *UP, *LAST, *DOWN[:4]]).down
    assert (down.decision_s, down.least_s, down.gone_s) == (20, 35, None)
    assert told([*FIRST, *UP, *LAST, *DOWN, event("spawned", 130, 3)]).down.gone_s is None
    assert told([*FIRST, *LAST]).down.gone_s is None  # there were none to go


def test_a_decision_for_more_is_no_way_down():
    more = [event("hpa_scaled", 95, detail="1 -> 2"), event("spawned", 96, 1)]
    found = told([*FIRST, *more, *LAST, event("hpa_scaled", 120, detail="2 -> 1"), event("stopped", 125, 1)])
    assert (found.down.decision_s, found.down.gone_s) == (40, 45)
    assert found.reactions[1].decision_s == 35


def test_replicas_are_paid_for_from_creation_until_they_are_gone_and_ready_for_less():
    found = told([*FIRST, *UP, *DOWN, *LAST])
    assert found.watched_s == 150
    assert found.replica_seconds == 150 + (121 - 31) + (105 - 31)
    assert found.ready_replica_seconds == 150 + (116 - 36) + (100.5 - 38)
    assert found.existing == [(0, 1), (31, 3), (105, 2), (121, 1)]
    assert found.ready == [(0, 1), (36, 2), (38, 3), (100.5, 2), (116, 1)]
    assert found.most_replicas == 3


def test_a_replica_that_is_gone_without_a_word_was_ready_until_then():
    killed = [event("spawned", 10, 1), event("ready", 15, 1), event("stopped", 45, 1)]
    found = told([*FIRST, *killed, *LAST])
    assert (found.replica_seconds, found.ready_replica_seconds) == (150 + 35, 150 + 30)


def test_watching_that_ended_early_is_told_as_that():
    found = told([*FIRST, *LAST[:1], event("cooldown_ended", 120)])
    assert (found.watched_s, found.replica_seconds) == (120, 120)


def test_samples_of_another_machines_clock_are_not_put_beside_the_events():
    assert told([event("spawned", -60, 0), event("load_started", 1), *LAST]) is None
    assert told([*FIRST, event("load_ended", -1)]) is None
    assert told([]) is None


def test_answers_recover_within_the_burst_when_the_rest_of_it_keeps_the_objective():
    load = every_tenth(late=[(22, 38)])
    first, second = told([*FIRST, *UP, *LAST], load).reactions
    assert (first.requests, first.violations) == (200, 161)
    assert first.recover_s == pytest.approx(18.1)
    assert (second.violations, second.recover_s) == (0, 0)


def test_answers_that_are_late_to_the_bursts_end_recover_after_it():
    first = told([*FIRST, *LAST], every_tenth(late=[(22, 41)])).reactions[0]
    assert first.recover_s == pytest.approx(20 + 1.1)
    assert told([*FIRST, *LAST], every_tenth(late=[(22, 65)])).reactions[0].recover_s is None


def test_a_good_moment_before_the_queue_has_built_up_is_no_recovery():
    load = every_tenth(late=[(20, 20), (24, 33)])  # an early hiccup, and then the queue
    assert told([*FIRST, *LAST], load).reactions[0].recover_s == pytest.approx(13.1)


def test_one_late_answer_in_a_good_burst_is_forgiven_and_three_are_not():
    assert told([*FIRST, *LAST], every_tenth(late=[(30, 30)])).reactions[0].recover_s == 0
    three = every_tenth(late=[(25, 25), (30, 30), (35, 35)])
    assert told([*FIRST, *LAST], three).reactions[0].recover_s == pytest.approx(15.1)


def test_violations_are_those_of_the_whole_load_for_a_queue_outlives_its_burst():
    found = told([*FIRST, *LAST], every_tenth(late=[(38, 41)], failed=[(50, 50)]))
    assert (found.requests, found.violations) == (900, 32)
    assert numbers_of(found)["violations_percent"] == pytest.approx(100 * 32 / 900)
    assert [r.violations for r in found.reactions] == [20, 0]


def test_means_are_over_the_bursts_for_which_more_were_asked():
    second = [event("hpa_scaled", 66, detail="1 -> 2"), event("spawned", 67, 3), event("ready", 80, 3)]
    numbers = numbers_of(told([*FIRST, *UP, *second, *LAST]))
    assert (numbers["decision_s"], numbers["ready_s"], numbers["all_ready_s"]) == (8, 18, 19)
    unseen = numbers_of(told([*FIRST, *UP, *second[:-1], *LAST]))
    assert (unseen["decision_s"], unseen["ready_s"]) == (8, None)
    nothing = numbers_of(told([*FIRST, *LAST]))
    assert (nothing["decision_s"], nothing["ready_s"], nothing["recover_s"]) == (None, None, 0)


def test_the_time_to_recover_is_that_of_the_burst_that_took_longest():
    assert numbers_of(told([*FIRST, *LAST], every_tenth(late=[(22, 30)])))["recover_s"] == pytest.approx(10.1)
    both = every_tenth(late=[(22, 30), (62, 65)])
    assert numbers_of(told([*FIRST, *LAST], both))["recover_s"] == pytest.approx(10.1)
    unseen = every_tenth(late=[(22, 30), (62, 90)])
    assert numbers_of(told([*FIRST, *LAST], unseen))["recover_s"] is None


def test_the_mean_number_of_replicas_is_what_is_paid_for_over_the_time_watched():
    numbers = numbers_of(told([*FIRST, *UP, *DOWN, *LAST]))
    assert numbers["replicas_mean"] == pytest.approx(314 / 150)
    assert numbers["ready_percent"] == pytest.approx(100 * 292.5 / 314)


MACHINE = Instance.model_validate(
    {
        "name": "m",
        "provider": "P",
        "region": "r",
        "vcpus": 4,
        "memory_gib": 8,
        "usd_per_hour": 0.36,
        "dated": "2026-01-02",
        "source": "https://example.com/prices",
    }
)
GIB = 2**30


def test_a_replica_costs_the_share_of_a_machine_that_it_fills_first():
    assert replica_usd_per_hour(MACHINE, 1, 1 * GIB) == pytest.approx(0.09)  # a quarter of its CPUs
    assert replica_usd_per_hour(MACHINE, 1, 4 * GIB) == pytest.approx(0.18)  # half of its memory


def test_the_cost_of_what_there_was_stands_beside_that_of_a_fixed_fleet():
    (cost,) = fleet_costs(1.5, 3, 1, GIB, Prices(instances=[MACHINE]))
    assert (cost.usd_per_hour, cost.fixed_usd_per_hour) == pytest.approx((0.135, 0.27))
    assert (cost.instance, cost.dated, cost.source) == ("m", "2026-01-02", MACHINE.source)
    assert fleet_costs(None, 3, 1, GIB, Prices(instances=[MACHINE])) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_scaled_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copied(run, tmp_path):
    """That run, to be changed."""
    return Path(shutil.copytree(run, tmp_path / run.name))


@pytest.fixture(scope="module")
def results(run):
    return compute(read_run(run))


def test_a_runs_rows_are_the_means_of_its_cells(results):
    for engine in ("savedmodel", "torchserve"):
        runs = {
            name: results.metric(f"autoscaling.{name}").values[engine].runs
            for name in ("decision_s", "ready_s", "down_decision_s", "down_gone_s")
        }
        late = [0.8, 1.6, 2.4]
        assert runs["decision_s"] == pytest.approx([DECISION_S[engine] + s for s in late], abs=1e-6)
        assert runs["ready_s"] == pytest.approx(
            [DECISION_S[engine] + 0.5 + START_S[engine] + s for s in late], abs=1e-6
        )
        assert runs["down_decision_s"] == pytest.approx([DOWN_S[0]] * 3, abs=1e-6)
        assert runs["down_gone_s"] == pytest.approx([DOWN_S[1] + END_S] * 3, abs=1e-6)


def test_a_row_of_cost_is_that_of_the_price_files_first_machine(results, run):
    replicas, cost = (results.metric(f"autoscaling.{name}") for name in ("replicas_mean", "cost_per_hour"))
    # half a CPU and 1 GiB are a quarter of 2 vCPUs and of 4 GiB
    one = 0.25 * 0.08925
    assert "c7i.large" in cost.label
    assert cost.values["savedmodel"].value == pytest.approx(one * replicas.values["savedmodel"].value)
    assert cost.values["savedmodel"].runs == pytest.approx([one * n for n in replicas.values["savedmodel"].runs])
    rows = results.figures.fleet_cost["autoscaling"]["savedmodel"]
    assert rows[0].usd_per_hour == pytest.approx(cost.values["savedmodel"].value)
    assert rows[0].fixed_usd_per_hour == pytest.approx(3 * one)


def test_engines_are_judged_on_how_fast_they_follow(results):
    outcomes = {found.metric: found.verdict.outcome for found in results.verdicts}
    assert outcomes["autoscaling.ready_s"] == outcomes["autoscaling.recover_s"] == "A"
    assert set(outcomes) == {
        f"autoscaling.{name}" for name in ("violations_percent", "ready_s", "recover_s", "replica_seconds")
    }


def test_the_figure_shows_a_percentile_that_its_bins_have_answers_for(results):
    shown = results.figures.autoscaling["autoscaling"]
    assert shown.bursts == [(60, 120), (180, 240)]
    assert shown.watched_s == 390
    # 10 requests/s and 60 in bursts, in bins of 5 s, 3 runs: 150 and 900
    assert (shown.bin_s, shown.tail) == (5, "p95")
    ready = shown.engines["savedmodel"].ready
    assert ready[0] == (0, 1)
    assert max(count for _, count in ready) == 3
    assert ready[-1][1] == 1
    first = 60 + DECISION_S["savedmodel"] + 0.8 + 0.5 + START_S["savedmodel"]
    assert ready[1] == (pytest.approx(first, abs=1e-6), pytest.approx(4 / 3))  # one run of three has its second one


def test_few_answers_are_shown_by_their_median(results, run):
    few = {one.id: _thinned(one.id, run) for one in results.runs}
    shown = replicas_over_time(GroupOfRuns("autoscaling", ["savedmodel", "torchserve"], results.runs, few, [], None))
    assert (shown.bin_s, shown.tail) == (10, "p50")  # wider, as long as a burst keeps its shape


def _thinned(name, run):
    whole = read_samples(run / "cells" / name / "samples.parquet")
    kept = slice(None, None, 40)
    return replace(
        whole,
        **{field: getattr(whole, field)[kept] for field in ("scheduled_ns", "latency_ns", "ok", "images")},
    )


def test_the_report_tells_every_burst_the_way_down_and_both_sides_of_the_trade(run):
    results, page = write_report(run)
    text = page.read_text()
    assert 'id="autoscaling"' in text
    assert "savedmodel, run 1, burst 1" in text
    assert "TorchServe, run 3, after the last burst" in text
    assert "1 to 3" in text
    assert "3, no scale-up" in text
    assert "fixed fleet of 3" in text
    assert "of at most 3 replicas existed" in text
    assert "1 to 3 replicas at 70 % of their CPU, objective 200 ms" in text
    json.dumps(results.as_json(), allow_nan=False)


def test_a_run_whose_clocks_differ_tells_latencies_and_says_why_no_more(copied):
    for path in copied.glob("cells/*/events.json"):
        moved = [{**told, "t_ns": told["t_ns"] + 10**15} for told in json.loads(path.read_text())]
        path.write_text(json.dumps(moved))
    results, page = write_report(copied)
    assert results.metric("autoscaling.p50").values["savedmodel"].value is not None
    assert results.metric("autoscaling.ready_s").values["savedmodel"].value is None
    assert any("could not be compared" in note for note in results.notes)
    assert 'id="autoscaling"' not in page.read_text()


@pytest.mark.parametrize(
    ("reasons", "counts"),
    [
        (["412 arrivals were dropped: 1000 requests were under way", "900 of 9000 requests failed"], True),
        (["900 of 9000 requests failed", "the generator was busy: 90% of a core, over 80%"], False),
        (["3 answers were wrong"], False),
    ],
)
def test_requests_that_fail_until_replicas_have_come_are_an_answer_and_a_busy_generator_is_none(
    copied, reasons, counts
):
    for path in copied.glob("cells/*/summary.json"):
        path.write_text(json.dumps({"valid": False, "reasons": reasons}))
    runs = compute(read_run(copied)).runs
    assert [one.counts for one in runs] == [counts] * 6
    assert all(one.reasons == reasons for one in runs)


@pytest.mark.parametrize(
    ("said", "noted"),
    [(None, True), ({"balancer": "haproxy"}, False), ({"reach": "pods"}, False)],
)
def test_a_service_alone_is_told_for_it_deals_out_connections(copied, said, noted):
    study = json.loads((copied / "study.json").read_text())
    study["plan"]["kubernetes"] = said
    (copied / "study.json").write_text(json.dumps(study))
    notes = compute(read_run(copied)).notes
    assert any("deals out connections" in note for note in notes) == noted


def test_the_plan_of_the_page_is_a_plan():
    page = (ROOT / "docs" / "how-to" / "autoscaling.md").read_text()
    plan = parse_plan(page.split("```yaml\n")[1].split("```")[0], "docs/how-to/autoscaling.md")
    assert plan.autoscaling.peak_rate == 25


def test_every_engine_and_repetition_is_a_cell_that_begins_with_the_least_replicas():
    plan = parse_plan(PLAN.replace("min_replicas: 1", "min_replicas: 2"), "plan")
    cells = cells_of(plan)
    assert sorted((cell.engine, cell.repetition) for cell in cells) == [
        (engine, repetition) for engine in ("savedmodel", "torchserve") for repetition in (1, 2, 3)
    ]
    assert {cell.scenario for cell in cells} == {"autoscaling"}
    assert {cell.replicas for cell in cells} == {2}
    assert expected_s(plan, cells[:1]) > 270 + 10 + 120


def test_the_way_down_is_watched_for_as_long_as_it_may_take():
    assert parse_plan(PLAN, "plan").autoscaling.watch_after_s == 120
    left_open = parse_plan(PLAN.replace(", cooldown_s: 120", ""), "plan")
    assert left_open.autoscaling.watch_after_s == 60 + 2 * 15 + 60


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "backend: kubernetes",
            "backend: docker",
            "backend docker cannot enforce `autoscaling`: set backend: kubernetes",
        ),
        ("peak_rate: 60", "peak_rate: 10", r"peak_rate \(10\) must be above base_rate \(10\)"),
        ("max_replicas: 3", "max_replicas: 1", r"max_replicas \(1\) must be above min_replicas \(1\)"),
        ("duration_s: 270", "duration_s: 100", "must hold a whole burst"),
        ("objective_ms: 200, ", "", "`autoscaling.objective_ms` is missing"),
    ],
)
def test_a_plan_that_no_autoscaler_can_answer_is_refused(old, new, words):
    with pytest.raises(StudyError, match=words):
        parse_plan(PLAN.replace(old, new), "plan")


def test_a_plan_without_autoscaling_is_stored_as_before():
    plan = parse_plan("name: a\nengines: [torchserve]\nsteady: {rate_per_s: 5, duration_s: 5}\n", "plan")
    assert "autoscaling" not in plan.model_dump(mode="json")


class PretendedCluster(ProcessBackend):
    """Processes in a cluster's place; it notes the autoscalers that are asked for."""

    name = "kubernetes"

    def __init__(self) -> None:
        self.asked: list[AutoscalerOrder] = []

    def environment(self):
        return {"kubernetes": {"version": "1.32.13", "context": "pretended", "nodes": []}}

    def autoscaled(self, asked):
        self.asked.append(asked)
        return self

    def start(self, order):
        cpus = tuple(sorted(os.sched_getaffinity(0)))
        budget = replace(order.budget, cpus=cpus, cpu_quota=None, memory_bytes=None)
        return super().start(replace(order, budget=budget))


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr(scraper, "_start_prometheus", lambda *_: None)
    monkeypatch.setattr(runner, "ENGINES", toy_engines())
    pretended = PretendedCluster()
    monkeypatch.setattr(runner, "choose_backend", lambda *_, **__: BackendChoice(pretended, toy_generator()))
    return pretended


def test_a_cell_asks_for_an_autoscaler_offers_bursts_once_and_stays_for_the_way_down(tmp_path, cluster):
    bursty = {"base_rate": 20, "peak_rate": 60, "on_s": 2, "off_s": 2, "objective_ms": 50, "duration_s": 6}
    scaled = {**bursty, "warmup_s": 0, "max_replicas": 2, "scale_down_stabilization_s": 7, "cooldown_s": 0.3}
    text = toy_plan(
        write_toy_model(tmp_path / "toy"),
        engines=["savedmodel"],
        backend="kubernetes",
        cold_starts=0,
        load_attempts=3,
        steady=None,
        scaling=None,
        autoscaling={**scaled, "repetitions": 1},
    )
    stand_ins = {"generator": toy_generator("invalid"), "machine": MadeUpMachine()}
    study = runner.Study(parse_plan(text, "plan"), text, tmp_path / "runs", **stand_ins)
    (cell,) = read_run(study.carry_out()).cells
    assert cluster.asked == [AutoscalerOrder(1, 2, 70, 7)] * 2  # to check its rights, and for the cell
    assert cell.complete
    assert cell.repeats == 0  # a second try would begin with the replicas that the first has made
    command = json.loads((cell.path / "generator.json").read_text())
    assert any(part.endswith("bursty.py") for part in command)
    assert command[command.index("--peak-rate") + 1] == "60"
    names = [event.name for event in cell.events]
    assert names.index("load_ended") < names.index("cooldown_ended")
    times = {event.name: event.t_ns for event in cell.events}
    assert times["cooldown_ended"] - times["load_ended"] >= 0.3e9
