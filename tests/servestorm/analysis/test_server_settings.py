"""What servers really ran with, over a study's runs, and what the report shows of it."""

from __future__ import annotations

import json

import pytest

from servestorm.analysis.results import compute
from servestorm.report import page
from servestorm.report.facts import environment
from servestorm.report.markdown import markdown
from servestorm.report.page import page_of
from servestorm.rundir.record import read_run
from serving.server_settings import NAMES
from tests.stand_ins.synthetic_run import PLAN, make_run

ATTACHED = """\
name: attached
model: {name: cnn}
engines: [savedmodel, torchserve]
backend: attach
attach: {savedmodel: {rest: "http://a:1"}, torchserve: {rest: "http://b:2"}}
repetitions: 3
steady: {rate_per_s: 80, duration_s: 12, warmup_s: 2}
cpus: {engine: [0], generator: [0]}
"""


def setting(value=None, reason="it does not say it", applies=True):
    known = value is not None
    return {
        "value": value,
        "source": "GET /toy" if known else "",
        "reason": "" if known else reason,
        "applies": applies,
    }


def write_settings(run, ordered=None, notes=(), **by_engine):
    """settings.json of every run: each engine's values by name, or a whole entry where it is a dict."""
    for folder in (run / "cells").iterdir():
        engine = json.loads((folder / "cell.json").read_text())["engine"]
        values = by_engine.get(engine, {})
        known = {name: values.get(name) for name in NAMES}
        each = {name: value if isinstance(value, dict) else setting(value) for name, value in known.items()}
        asked = ordered and {name: ordered.get(name) for name in NAMES}
        replicas = [{"replica": 0, "notes": list(notes), **each}]
        (folder / "settings.json").write_text(json.dumps({"ordered": asked, "replicas": replicas}))


def facts(results) -> dict[str, str]:
    return {
        term: value for block in environment(results) if block.title == "Server settings" for term, value in block.facts
    }


def by_name(results, engine):
    return {one.name: one for one in results.server_settings if one.engine == engine}


def test_every_value_that_was_read_is_kept_with_its_source(tmp_path):
    run = make_run(tmp_path)
    write_settings(run, {"max_batch_size": 8}, savedmodel={"max_batch_size": 8}, torchserve={"max_batch_size": 8})
    first = sorted((run / "cells").glob("*-steady-savedmodel-*"))[0] / "settings.json"
    first.write_text(first.read_text().replace('"value": 8', '"value": 1'))
    size = by_name(compute(read_run(run)), "savedmodel")["max_batch_size"]
    assert (size.values, size.ordered, size.sources, size.reasons) == ([1, 8], [8], ["GET /toy"], [])


def test_the_report_shows_what_was_read_and_why_something_was_not(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    off = setting(reason="batching is off", applies=False)
    write_settings(
        run,
        {"threads": 2, "max_batch_size": 1, "batch_delay_us": 1000},
        savedmodel={"max_batch_size": 1, "threads": 2, "batch_delay_us": off},
        torchserve={"max_batch_size": 1, "batch_delay_us": 1000},
    )
    results = compute(read_run(run))
    shown = facts(results)
    assert shown["savedmodel: images in a batch"] == "1 (GET /toy)"
    assert shown["savedmodel: wait for a batch"] == "none: batching is off"
    assert shown["TorchServe: wait for a batch"] == "1,000 µs (GET /toy)"
    assert shown["TorchServe: threads of an operation"] == "not readable: it does not say it; the study set 2"
    monkeypatch.setattr(page, "SECTIONS", ())
    assert "| TorchServe: wait for a batch | 1,000 µs (GET /toy) |" in markdown(page_of(results))


def test_a_run_of_before_says_what_was_asked_for(tmp_path):
    results = compute(read_run(make_run(tmp_path)))
    assert results.server_settings == []
    assert facts(results) == {"Threads a replica": "asked for 1", "Batching": "asked for no batching"}


def test_what_an_archive_changes_besides_is_a_note_once(tmp_path):
    run = make_run(tmp_path)
    write_settings(run, notes=["It batches by sequence."])
    notes = compute(read_run(run)).notes
    assert notes.count("TorchServe: It batches by sequence.") == 1
    assert notes.count("savedmodel: It batches by sequence.") == 1


def unequal(results) -> list[str]:
    return [doubt.sentence for doubt in results.doubts if doubt.kind == "unequal_settings"]


@pytest.mark.parametrize(
    ("savedmodel", "torchserve", "told"),
    [
        ({"max_batch_size": 1}, {"max_batch_size": 4}, "images in a batch: savedmodel 1, TorchServe 4"),
        (
            {"max_batch_size": 4, "batch_delay_us": 1000},
            {"max_batch_size": 4, "batch_delay_us": 200_000},
            "µs of waiting for a batch: savedmodel 1,000, TorchServe 200,000",
        ),
        ({"threads": 1}, {"threads": 2}, "threads of one operation: savedmodel 1, TorchServe 2"),
    ],
)
def test_engines_that_ran_already_with_different_settings_are_gravely_doubted(tmp_path, savedmodel, torchserve, told):
    run = make_run(tmp_path, ATTACHED)
    write_settings(run, savedmodel=savedmodel, torchserve=torchserve)
    results = compute(read_run(run))
    (sentence,) = unequal(results)
    assert told in sentence and sentence.endswith("start them alike.")
    assert next(doubt for doubt in results.doubts if doubt.kind == "unequal_settings").severity == "grave"


@pytest.mark.parametrize(
    ("savedmodel", "torchserve"),
    [
        ({"max_batch_size": 4, "batch_delay_us": 1000}, {"max_batch_size": 4, "batch_delay_us": 1000}),
        ({"max_batch_size": 4}, {}),  # what is not known differs from nothing
        ({"max_batch_size": 1, "batch_delay_us": 5}, {"max_batch_size": 1, "batch_delay_us": 9}),  # no batch waits
    ],
)
def test_equal_or_unknown_settings_are_not_doubted(tmp_path, savedmodel, torchserve):
    run = make_run(tmp_path, ATTACHED)
    write_settings(run, savedmodel=savedmodel, torchserve=torchserve)
    assert unequal(compute(read_run(run))) == []


def test_a_study_that_varies_its_own_settings_is_not_doubted_for_it(tmp_path):
    run = make_run(tmp_path, PLAN)
    write_settings(run, savedmodel={"max_batch_size": 1}, torchserve={"max_batch_size": 4})
    assert unequal(compute(read_run(run))) == []
