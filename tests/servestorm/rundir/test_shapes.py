"""Whatever a person's hand does to a file of a run, it is named, or it does no harm: never a traceback."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from servestorm.analysis.results import compute
from servestorm.errors import StudyError
from servestorm.plan.study_plan import parse_plan
from servestorm.report import page
from servestorm.report.html_page import render
from servestorm.rundir.record import read_run
from servestorm.study import runner, scraper
from tests.stand_ins.made_up_machine import MadeUpMachine
from tests.stand_ins.toy_engine import toy_engines, toy_generator, toy_plan, write_toy_model

CAPACITY = {"p99_ms": 20, "start_rate_per_s": 200, "probe_s": 8, "warmup_s": 0, "tolerance_percent": 20}
SWEEP = {"max_batch_size": [1], "timeout_us": [100], "concurrency": [1], "duration_s": 8, "warmup_s": 0}
GONE = object()
EDITS = (GONE, None, "x", -1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with one cell or more of every kind of file."""
    folder = tmp_path_factory.mktemp("kept")
    changes = {"engines": ["savedmodel"], "capacity": CAPACITY, "sweep": SWEEP, "scaling": None}
    text = toy_plan(write_toy_model(folder / "toy"), **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scraper, "_start_prometheus", lambda *_: None)
        patch.setattr(runner, "ENGINES", toy_engines("answer"))
        stand_ins = {"generator": toy_generator("queue"), "machine": MadeUpMachine()}
        return runner.Study(parse_plan(text, "plan"), text, folder / "runs", **stand_ins).carry_out()


@pytest.fixture
def copied(run, tmp_path):
    """A copy of it to be spoiled."""
    return shutil.copytree(run, tmp_path / run.name)


def cell(run, part):
    return next(folder for folder in sorted((run / "cells").iterdir()) if f"-{part}-" in folder.name)


def change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_samples(path, change):
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def column(name, values):
    """Makes a table's column another one."""
    return lambda table: table.set_column(table.schema.get_field_index(name), name, [values(len(table))])


def draw(run, monkeypatch):
    """Everything that a report says, without its drawings."""
    monkeypatch.setattr(page, "SECTIONS", ())
    render(page.page_of(compute(read_run(run))))


def places(value, at=()) -> Iterator[tuple]:
    """Where something stands in a JSON value; of a list, its first."""
    if at:
        yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in inside:
        yield from places(part, (*at, key))


def edited(value, at, to):
    changed = copy.deepcopy(value)
    around = changed
    for key in at[:-1]:
        around = around[key]
    if to is GONE:
        del around[at[-1]]
    else:
        around[at[-1]] = to
    return changed


@pytest.mark.parametrize(
    "name",
    [
        *("study", "environment", "manifest", "cell", "outcome", "events", "use", "summary", "capacity", "sweep"),
        "settled",
        "settings",
    ],
)
def test_no_edit_of_a_file_is_a_traceback(run, name, monkeypatch):
    path = next(path for path in sorted(run.rglob(f"{name}.json")) if len(path.relative_to(run).parts) in (1, 3))
    whole, refused = path.read_text(), 0
    try:
        for at in places(json.loads(whole)):
            for to in EDITS:
                path.write_text(json.dumps(edited(json.loads(whole), at, to)))
                try:
                    draw(run, monkeypatch)
                except StudyError as error:
                    assert path.name in str(error), (at, to, error)
                    refused += 1
    finally:
        path.write_text(whole)
    assert refused
    draw(run, monkeypatch)


@pytest.mark.parametrize(
    ("name", "at", "to", "told"),
    [
        ("capacity", ("probes",), GONE, "probes: field required"),
        (
            "capacity",
            ("probes", 0, "verdict"),
            "perhaps",
            "probes.0.verdict: input should be 'pass', 'fail', 'invalid' or 'disturbed'",
        ),
        (
            "cell",
            ("variant",),
            7,
            "id: it is 000-coldstart-savedmodel-1, and the rest makes it 000-coldstart-savedmode",
        ),
        ("cell", ("engine",), "torchserve", "and the rest makes it 000-coldstart-torchserve-1"),
        ("cell", ("id",), "007-coldstart-savedmodel-1", "and the rest makes it 000-coldstart-savedmodel-1"),
        ("study", ("cells", 1), "000-coldstart-savedmodel-1", "cells: 000-coldstart-savedmodel-1 is there twice"),
        ("study", ("plan", "limits"), {"cpus": "many"}, "plan.limits.cpus: input should be a valid number"),
        ("study", ("plan", "capacity", "p99_ms"), GONE, "plan.capacity.p99_ms: field required"),
        ("study", ("variants", 0, "model"), 3, "a model beyond the 1 of the plan"),
        ("events", (0, "t_ns"), 0.5, "0.t_ns: input should be a valid integer"),
        ("events", (0, "t_ns"), float("nan"), "is not JSON (NaN is no number)"),
        ("manifest", ("parity",), {"status": "proved"}, "parity.tolerance: field required"),
        ("environment", ("packages",), {"torch": 2}, "packages.torch: input should be a valid string"),
        ("environment", ("memory_bytes",), 10**4000, "memory_bytes: input should be less than or equal to"),
        ("environment", ("git_commit",), 7, "git_commit: input should be a valid string"),
    ],
)
def test_the_fault_is_named_with_its_file_and_its_place(run, name, at, to, told):
    path = next(path for path in sorted(run.rglob(f"{name}.json")) if len(path.relative_to(run).parts) in (1, 3))
    whole = path.read_text()
    path.write_text(json.dumps(edited(json.loads(whole), at, to)))
    try:
        with pytest.raises(StudyError) as caught:
            read_run(run)
    finally:
        path.write_text(whole)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("part", "name"),
    [("steady", "summary.json"), ("steady", "samples.parquet"), ("capacity", "capacity.json"), ("sweep", "sweep.json")],
)
def test_a_complete_run_without_what_it_found_is_refused(copied, part, name):
    path = cell(copied, part) / name
    path.unlink()
    with pytest.raises(StudyError, match="is missing: the run was moved or edited without it") as caught:
        read_run(copied)
    assert str(path) in str(caught.value)


def test_a_run_that_did_not_end_may_lack_what_it_did_not_find(copied):
    folder = cell(copied, "steady")
    change(folder / "outcome.json", state="failed", reason="the generator crashed")
    (folder / "samples.parquet").unlink()
    (folder / "summary.json").unlink()
    found = next(run for run in compute(read_run(copied)).runs if run.id == folder.name)
    assert found.state == "failed"


def test_what_a_kind_of_run_does_not_leave_says_nothing_of_it(copied):
    folder = cell(copied, "steady")
    before = compute(read_run(copied)).metric("steady.images_per_s")
    shutil.copy(cell(copied, "capacity") / "capacity.json", folder)
    assert compute(read_run(copied)).metric("steady.images_per_s") == before


def test_a_folder_of_another_name_than_its_run_is_refused(copied):
    folder = cell(copied, "steady")
    shutil.copytree(folder, folder.with_name(folder.name + "-again"))
    with pytest.raises(StudyError, match=rf"is of the run {folder.name}, and its folder is {folder.name}-again"):
        read_run(copied)


def test_a_run_of_another_study_is_refused(copied):
    folder = cell(copied, "steady")
    names = json.loads((copied / "study.json").read_text())["cells"]
    change(copied / "study.json", cells=[name for name in names if name != folder.name])
    with pytest.raises(StudyError, match=rf"{folder.name}, which is not one of study\.json's"):
        read_run(copied)


def test_a_folder_that_lost_its_cell_file_is_refused(copied):
    (cell(copied, "steady") / "cell.json").unlink()
    with pytest.raises(StudyError, match=r"cell\.json does not exist"):
        read_run(copied)


def test_samples_that_are_fewer_than_the_summary_tells_are_refused(copied):
    folder = cell(copied, "steady")
    told = json.loads((folder / "summary.json").read_text())["scheduled"]
    change_samples(folder / "samples.parquet", lambda table: table.slice(0, told - 100))
    with pytest.raises(
        StudyError, match=rf"tells of {told} requests, and samples.parquet beside it holds {told - 100}"
    ):
        compute(read_run(copied))


def test_the_samples_of_the_warm_up_are_not_the_summary_s(copied):
    folder = cell(copied, "steady")
    told = json.loads((folder / "summary.json").read_text())["scheduled"]
    change_samples(folder / "samples.parquet", column("warmup", lambda rows: pa.array(np.arange(rows) < 10)))
    with pytest.raises(StudyError, match=f"holds {told - 10}:"):
        compute(read_run(copied))
    change(folder / "summary.json", scheduled=told - 10)
    compute(read_run(copied))


def test_samples_without_a_row_are_refused(copied):
    folder = cell(copied, "steady")
    summary = json.loads((folder / "summary.json").read_text())
    del summary["scheduled"]
    (folder / "summary.json").write_text(json.dumps(summary))
    change_samples(folder / "samples.parquet", lambda table: table.slice(0, 0))
    with pytest.raises(StudyError, match=r"samples\.parquet holds no request"):
        compute(read_run(copied))


@pytest.mark.parametrize(("name", "planned"), [("rate", "rate_per_s"), ("duration_s", "duration_s")])
def test_a_load_that_is_not_the_plan_s_is_refused(copied, name, planned):
    path = cell(copied, "steady") / "summary.json"
    asked = json.loads((copied / "study.json").read_text())["plan"]["steady"][planned]
    change(path, **{name: asked})
    compute(read_run(copied))
    change(path, **{name: asked * 2})
    with pytest.raises(StudyError, match=f"has a {name} of {asked * 2:g}, and study.json asks for {asked:g}"):
        compute(read_run(copied))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rate_per_s": 5000.0}, "rate_per_s: it is 5000, and the probes tell"),
        ({"rate_per_s": None}, "rate_per_s: it is none, and the probes tell"),
        ({"low": 1.0}, "low: it is 1, and the probes tell"),
        ({"high": None}, "high: it is none, and the probes tell"),
        ({"confirmed": False}, "confirmed: the probes tell the opposite"),
        ({"probes": []}, "probes: list should have at least 1 item"),
    ],
)
def test_a_capacity_that_its_own_probes_do_not_tell_is_refused(copied, changes, told):
    change(cell(copied, "capacity") / "capacity.json", **changes)
    with pytest.raises(StudyError, match=told):
        read_run(copied)


def test_a_probe_over_the_objective_has_not_passed(copied):
    path = cell(copied, "capacity") / "capacity.json"
    found = json.loads(path.read_text())
    place = next(place for place, probe in enumerate(found["probes"]) if probe["verdict"] == "pass")
    found["probes"][place]["p99_ms"] = 1000.0
    path.write_text(json.dumps(found))
    with pytest.raises(StudyError, match=rf"probes\.{place}: it passed, and its p99 is over the objective"):
        read_run(copied)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("scheduled_ns", lambda rows: pa.array(["x"] * rows)),
        ("outcome", lambda rows: pa.array([1] * rows)),
        ("warmup", lambda rows: pa.array(["no"] * rows)),
        ("endpoint", lambda rows: pa.array(["0"] * rows)),
        ("sent_bytes", lambda rows: pa.array(["700"] * rows)),
    ],
)
def test_a_column_of_another_kind_is_named(copied, name, values):
    change_samples(cell(copied, "steady") / "samples.parquet", column(name, values))
    with pytest.raises(StudyError, match=rf"samples\.parquet has \w+ in its column {name}"):
        compute(read_run(copied))


def test_an_answer_to_what_was_never_sent_is_refused(copied):
    change_samples(
        cell(copied, "steady") / "samples.parquet", column("sent_ns", lambda rows: pa.nulls(rows, pa.int64()))
    )
    with pytest.raises(StudyError, match=r"samples\.parquet has an answer to what was never sent"):
        compute(read_run(copied))


@pytest.mark.parametrize("part", ["coldstart", "steady"])
@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_a_cut_file_of_metrics_is_named(copied, part, content):
    (cell(copied, part) / "metrics.parquet").write_bytes(content)
    with pytest.raises(StudyError, match=r"metrics\.parquet is no whole file of metrics"):
        compute(read_run(copied))


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("value", ["x"], "is no whole file of metrics"),
        ("labels", ["{"], "is no whole file of metrics"),
        ("labels", ["[]"], "labels that are no object"),
        ("metric", pa.nulls(1, pa.string()), "has gaps in its column metric"),
    ],
)
def test_metrics_of_another_kind_are_named(copied, column, values, told):
    whole = {"time_unix_ms": [1], "replica": [0], "metric": ["a"], "labels": ["{}"], "value": [1.0]}
    path = cell(copied, "steady") / "metrics.parquet"
    pq.write_table(pa.table(whole), path)
    compute(read_run(copied))
    pq.write_table(pa.table({**whole, column: values}), path)
    with pytest.raises(StudyError, match=told):
        compute(read_run(copied))


def test_a_server_s_log_may_hold_any_bytes(copied):
    (cell(copied, "coldstart") / "server.log").write_bytes(b"\xff\xfe event=tensorflow_imported seconds=1.5\n")
    found = next(run for run in compute(read_run(copied)).runs if run.scenario == "coldstart")
    assert found.numbers["server_import_s"] == 1.5
