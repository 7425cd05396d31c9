"""Reasons to doubt: each is found where it is there, and none where it is not."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.samples.recorder import SCHEMA
from servestorm.analysis.doubt_facts import LoadConditions, RunFacts, facts_of, facts_of_loads
from servestorm.analysis.doubts import doubts
from servestorm.errors import StudyError
from servestorm.plan.cells import Cell
from servestorm.rundir.record import CellRecord
from servestorm.rundir.shapes.cell import OutcomeFile, SummaryFile, UseFile
from servestorm.rundir.shapes.search import CapacityFile, ProbeFile
from servestorm.study.machine_counters import Counters, MachineWatch, clocksource, difference

QUIET = {
    "elapsed_s": 10.0,
    "wall_drift_ms": 0.1,
    "clocksource": "tsc",
    "cores": [0, 1],
    "ours_s": 8.0,
    "other_s": 0.1,
    "steal_s": 0.0,
    "swapped_pages": 0,
    "throttled_s": 0.0,
}
BEGIN = Counters(0, 0, {0: 100.0, 1: 50.0, 2: 7.0}, {0: 1.0, 1: 1.0, 2: 1.0}, 20.0, 5, 0.5)
END = Counters(10_000_000_000, 10_030_000_000, {0: 108.0, 1: 55.0, 2: 17.0}, {0: 1.5, 1: 1.0, 2: 9.0}, 32.0, 9, 0.75)


def run(**changes) -> RunFacts:
    """A run that gives no reason to doubt, with changes; `watch` changes what was watched."""
    watch = {**QUIET, **changes.pop("watch", {})}
    used = UseFile(ready={"t_ns": 0}, end={"t_ns": 10**10, "swap_bytes": 0}, watch=watch)
    plain = RunFacts("003-steady", 1, 1, (0,), (1,), used, 0.3, None, 0)
    return dataclasses.replace(plain, **changes)


def kinds(*runs):
    return [(doubt.severity, doubt.kind) for doubt in doubts(runs)]


def test_a_quiet_run_gives_no_reason():
    assert doubts([run()]) == []
    assert doubts([]) == []


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({"threads": 2}, ("doubt", "threads_over_budget"), "1 x 2 compute threads had 1 core"),
        ({"unchecked": True}, ("doubt", "unchecked_answers"), "any well-formed answer counted (answers: unchecked)"),
        ({"replicas": 4, "engine_cores": (0, 2)}, ("doubt", "shared_cores"), "4 replicas shared 2 cores"),
        ({"generator_cores": (0, 1)}, ("doubt", "shared_with_generator"), "shared core 0"),
        (
            {"busiest_over_mean": 1.25, "replicas": 2, "engine_cores": (0, 2)},
            ("doubt", "uneven_balancing"),
            "25 % more",
        ),
        ({"generator_cpu_share": 0.7}, ("note", "generator_saturation"), "70 % of a core"),
        ({"generator_cpu_share": 0.9}, ("grave", "generator_saturation"), "90 % of a core"),
        ({"repeats": 2}, ("note", "generator_repeats"), "offered 3 times"),
        ({"watch": {"throttled_s": 0.05}}, ("note", "throttled"), "0.05 s of 10.0 s"),
        ({"watch": {"throttled_s": 2.0}}, ("doubt", "throttled"), "2.00 s of 10.0 s"),
        ({"watch": {"swapped_pages": 300}}, ("doubt", "swap"), "swapped 300 pages"),
        ({"watch": {"other_s": 1.0}}, ("doubt", "other_load"), "5 % of the study's cores"),
        ({"watch": {"other_s": 8.0}}, ("grave", "other_load"), "40 % of the study's cores"),
        ({"watch": {"steal_s": 0.5}}, ("doubt", "steal"), "took 2 % of"),
        ({"watch": {"steal_s": 2.0}}, ("grave", "steal"), "took 10 % of"),
        ({"watch": {"clocksource": "hpet"}}, ("doubt", "clocksource"), "is hpet"),
        ({"watch": {"wall_drift_ms": -250.0}}, ("note", "clock_set"), "moved by 250 ms"),
    ],
)
def test_each_reason_is_found_and_told_with_its_size(changes, expected, words):
    (doubt,) = doubts([run(**changes)])
    assert (doubt.severity, doubt.kind) == expected
    assert words in doubt.sentence and doubt.runs == ["003-steady"]


def test_servers_in_swap_are_graver_than_a_machine_that_swaps():
    used = {"end": {"swap_bytes": 64 * 2**20}, "watch": {**QUIET, "swapped_pages": 9}}
    assert kinds(run(use=UseFile(**used))) == [("grave", "servers_swapped")]


def test_the_servers_own_throttling_counts_before_ours():
    used = {
        "ready": {"t_ns": 0, "throttled_s": 1.0},
        "end": {"t_ns": 10**10, "throttled_s": 4.0},
        "watch": {**QUIET, "throttled_s": 0.0},
    }
    (doubt,) = doubts([run(use=UseFile(**used))])
    assert "3.00 s of 10.0 s" in doubt.sentence


def test_what_the_kernel_does_not_tell_is_no_reason():
    unknown = dict.fromkeys(QUIET)
    assert doubts([run(watch=unknown)]) == []
    assert doubts([run(use=UseFile(), generator_cpu_share=None)]) == []


def test_runs_with_the_same_reason_are_told_once_with_the_worst_and_the_gravest_come_first():
    runs = [run(id="a", watch={"steal_s": 0.3}), run(id="b", watch={"steal_s": 0.6}), run(id="c", watch={"other_s": 9})]
    grave, steal = doubts([*runs, run(id="d")])
    assert (grave.kind, grave.runs) == ("other_load", ["c"]) and grave.sentence.endswith("(run c)")
    assert steal.runs == ["a", "b"]
    assert "took 3 % of" in steal.sentence and steal.sentence.endswith("(the worst of 2 such runs of 4)")


def test_two_grades_of_the_same_reason_are_one_line_as_grave_as_the_worse():
    (found,) = doubts([run(id="1", watch={"steal_s": 0.5}), run(id="2", watch={"steal_s": 5.0})])
    assert (found.severity, found.kind, found.runs) == ("grave", "steal", ["1", "2"])
    assert found.sentence.startswith("The hypervisor took 25 %") and "of 2 such runs of 2" in found.sentence


def test_what_the_machine_did_is_told_for_the_studys_cores_only():
    found = difference(BEGIN, END, [0, 1], "tsc")
    assert found.elapsed_s == 10.0
    assert found.wall_drift_ms == pytest.approx(30.0)
    assert (found.ours_s, found.other_s) == (12.0, 1.0)  # cores 0 and 1 were busy for 13 s
    assert (found.steal_s, found.swapped_pages, found.throttled_s) == (0.5, 4, 0.25)


def test_our_own_work_on_further_cores_never_makes_the_others_negative():
    assert difference(BEGIN, dataclasses.replace(END, ours_s=90.0), [0], None).other_s == 0.0


def test_a_counter_that_is_missing_is_none():
    blind = Counters(0, 0, None, None, None, None, None)
    found = difference(blind, END, [0], None)
    unknown = ("ours_s", "other_s", "steal_s", "swapped_pages", "throttled_s", "gpus")
    assert {getattr(found, key) for key in unknown} == {None}
    assert difference(BEGIN, END, [0, 99], None).steal_s is None


def test_counters_are_read_as_the_kernel_writes_them(tmp_path):
    (tmp_path / "stat").write_text(
        "cpu  30 2 6 900 5 1 1 40 9 0\ncpu0 10 1 3 400 2 1 0 30 9 0\ncpu1 20 1 3 500 3 0 1 10 0 0\nintr 5 4\n"
    )
    (tmp_path / "vmstat").write_text("nr_free_pages 1\npswpin 3\npswpout 4\n")
    found = Counters.now(tmp_path)
    assert found.busy_s == pytest.approx({0: 0.15, 1: 0.25})
    assert found.steal_s == pytest.approx({0: 0.30, 1: 0.10})
    assert found.swapped_pages == 7
    assert Counters.now(tmp_path / "nothing").busy_s is None


def test_a_machine_without_a_clock_source_file_has_none(tmp_path):
    assert clocksource(tmp_path / "no-such-file") is None
    (tmp_path / "clock").write_text("tsc\n")
    assert clocksource(tmp_path / "clock") == "tsc"


def test_a_watch_counts_our_childrens_work_as_ours():
    watch = MachineWatch([0])
    code = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    begin = time.monotonic()
    found = watch.stop()
    assert found.ours_s >= 0.3
    assert math.isfinite(found.wall_drift_ms) and found.cores == (0,)
    assert found.elapsed_s <= time.monotonic() - begin + 60


def record(tmp_path, endpoints, replicas=2) -> CellRecord:
    rows = [
        dict.fromkeys(SCHEMA.names, 1)
        | {"outcome": "ok" if endpoint >= 0 else "dropped", "correct": True, "warmup": False}
        | {"endpoint": max(endpoint, 0), "sent_ns": 5 if endpoint >= 0 else None}
        for endpoint in endpoints
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "samples.parquet")
    return CellRecord(tmp_path, Cell(0, "scaling", "savedmodel", replicas, 1, 1), None, [], None, None)


def test_balancing_is_counted_over_the_requests_that_were_sent(tmp_path):
    facts = facts_of(record(tmp_path, [0, 0, 0, 1, -1, -1, -1]), LoadConditions((0, 2), (1,)))
    assert facts.busiest_over_mean == 1.5
    assert kinds(facts) == [("doubt", "uneven_balancing")]


def test_one_replica_or_broken_samples_have_no_balance(tmp_path):
    assert facts_of(record(tmp_path, [0, 0], replicas=1), LoadConditions((0,), (1,))).busiest_over_mean is None
    broken = record(tmp_path, [0])
    (tmp_path / "samples.parquet").write_bytes(b"PAR1 cut short")
    assert facts_of(broken, LoadConditions((0,), (1,))).busiest_over_mean is None


def test_loads_of_one_run_are_one_case_with_its_worst_load():
    probes = [
        run(id="a", load=f"probe-0{n}", watch={"steal_s": steal_s}) for n, steal_s in ((1, 0.3), (2, 0.6), (3, 0))
    ]
    (alone,) = doubts(probes)
    assert (alone.runs, alone.sentence[-11:]) == (["a"], " (probe-02)")
    assert "took 3 % of" in alone.sentence
    (one,) = doubts([*probes, run(id="b")])
    assert one.sentence.endswith("(run a, probe-02)")
    (two,) = doubts([*probes, run(id="b", watch={"steal_s": 0.4}), run(id="c")])
    assert two.runs == ["a", "b"] and two.sentence.endswith("(the worst of 2 such runs of 3)")


def test_of_an_overload_only_what_the_machine_did_is_told():
    changes = {"generator_cpu_share": 0.9, "repeats": 1, "watch": {"steal_s": 0.5}}
    assert kinds(run(overload=True, **changes)) == [("doubt", "steal")]
    assert len(kinds(run(**changes))) == 3


def put_load(folder, steal_s=0.0, cpu_share=0.1, again=0):
    """What the study leaves of one load."""
    folder.mkdir()
    used = {"ready": {"t_ns": 0}, "end": {"t_ns": 10**10}, "watch": {**QUIET, "steal_s": steal_s}}
    (folder / "use.json").write_text(json.dumps(used))
    (folder / "summary.json").write_text(json.dumps({"valid": True, "reasons": [], "cpu_share": cpu_share}))
    for attempt in range(again):
        (folder / f"attempt-{attempt + 1}").mkdir()


def searched(path, *verdicts) -> CellRecord:
    probes = [ProbeFile.model_construct(verdict=verdict) for verdict in verdicts]
    capacity = CapacityFile.model_construct(probes=probes)
    return CellRecord(path, SEARCHED, OutcomeFile(state="complete"), [], None, None, capacity=capacity)


SEARCHED = Cell(0, "capacity", "savedmodel", 2, 1, 1)
CONDITIONS = LoadConditions(engine_cores=(0, 2), generator_cores=(1,))


def test_every_probe_of_a_search_is_audited_and_no_other_folder(tmp_path):
    put_load(tmp_path / "estimate", steal_s=5.0)
    put_load(tmp_path / "probe-01", cpu_share=0.7, again=2)
    put_load(tmp_path / "probe-02", steal_s=0.5, cpu_share=0.95, again=1)
    facts = facts_of_loads(searched(tmp_path, "pass", "fail"), CONDITIONS)
    assert [(one.id, one.load, one.overload, one.repeats) for one in facts] == [
        (SEARCHED.id, "probe-01", False, 2),
        (SEARCHED.id, "probe-02", True, 1),
    ]
    assert kinds(*facts) == [("doubt", "steal"), ("note", "generator_saturation"), ("note", "generator_repeats")]


def test_a_sweeps_loads_are_audited_whole(tmp_path):
    put_load(tmp_path / "load-01", cpu_share=0.9)
    sweep = CellRecord(tmp_path, Cell(0, "sweep", "savedmodel", 1, 1, 1), None, [], None, None)
    assert kinds(*facts_of_loads(sweep, CONDITIONS)) == [("grave", "generator_saturation")]


def test_one_load_of_several_tells_no_balance(tmp_path):
    put_load(tmp_path / "probe-01")
    record(tmp_path / "probe-01", [0, 0, 0, 1])
    (facts,) = facts_of_loads(searched(tmp_path, "pass"), CONDITIONS)
    assert facts.busiest_over_mean is None


def test_a_load_that_nobody_watched_is_left_out_and_a_broken_one_is_named(tmp_path):
    (tmp_path / "probe-01").mkdir()
    assert facts_of_loads(searched(tmp_path, "pass"), CONDITIONS) == []
    (tmp_path / "probe-01" / "use.json").write_text('{"watch": {"steal_s": "much"}}')
    with pytest.raises(StudyError, match=r"probe-01/use\.json is not as servestorm wrote it \(watch\.steal_s"):
        facts_of_loads(searched(tmp_path, "pass"), CONDITIONS)


@pytest.mark.parametrize(("answers", "unchecked"), [("checked", False), ("unchecked", True), ("", False)])
def test_a_load_whose_answers_were_not_checked_is_one_to_doubt(answers, unchecked, tmp_path):
    loaded = dataclasses.replace(
        record(tmp_path, [0], replicas=1), summary=SummaryFile(valid=True, reasons=[], answers=answers)
    )
    assert facts_of(loaded, LoadConditions((0,), (1,))).unchecked is unchecked
