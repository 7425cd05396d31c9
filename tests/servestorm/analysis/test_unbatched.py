"""No verdict between engines hides that one of them ran requests one by one though the plan asks for batches."""

from __future__ import annotations

import json

import pytest

from servestorm.analysis.results import compute
from servestorm.compare.comparison import compare
from servestorm.report.html_page import render
from servestorm.report.markdown import markdown
from servestorm.report.page import page_of
from servestorm.report.paper_table import print_paper
from servestorm.report.sentences import better, summary
from servestorm.report.terminal import print_results
from servestorm.rundir.metrics_table import Point, table_bytes
from servestorm.rundir.record import read_run
from tests.stand_ins.synthetic_run import make_cell, make_run

TF = ":tensorflow:serving:"
UNBATCHED = ":savedmodel_server:unbatched_request_count"
REASON = "output names has a fixed first dimension of 10"
REQUESTS = (f"{TF}request_latency_count", {"API": "predict", "entrypoint": "REST", "model_name": "m"})
STATUS = (f"{TF}request_latency_count", {"API": "", "entrypoint": "REST", "model_name": "m"})
QUEUED = (f"{TF}batching_session:queuing_latency_count", {"thread_pool_name": "batch_threads"})
PAST_THE_QUEUE = (
    UNBATCHED,
    {"model_name": "m", "reason": REASON, "signature_name": "serving_default", "version": "1"},
)


def plan(engines="savedmodel, torchserve", batching="{max_batch_size: 8, timeout_us: 10000}", more=""):
    return f"""\
name: synthetic
model: {{name: cnn}}
engines: [{engines}]
repetitions: 3
cold_starts: 0
batching: {batching}
steady: {{rate_per_s: 80, duration_s: 12, warmup_s: 2}}
{more}"""


def metrics(readings):
    """metrics.parquet of one replica: each series' values at 0 s, 1 s, ...; None where it was not there yet."""
    points = [
        Point(1000 * second, 0, name, json.dumps(dict(sorted(labels.items()))), float(value))
        for (name, labels), values in readings
        for second, value in enumerate(values)
        if value is not None
    ]
    return table_bytes([Point(0, 0, "up", "{}", 1.0), *points])


@pytest.fixture
def results(tmp_path):
    """Results of a run of `text` in which every cell of `engine` has these readings."""

    def made(text, engine, readings):
        def cell_with_metrics(run, parsed, cell):
            path = make_cell(run, parsed, cell)
            if cell.engine == engine:
                (path / "metrics.parquet").write_bytes(metrics(readings))
            return path

        return compute(read_run(make_run(tmp_path, text, make=cell_with_metrics)))

    return made


SERVED_UNBATCHED = [(REQUESTS, [0, 100, 900]), (STATUS, [5, 6, 7]), (PAST_THE_QUEUE, [0, 100, 900])]
SENTENCE = (
    "savedmodel served 900 of 900 requests unbatched, though the plan asks for batches of 8 (signature "
    f"serving_default: {REASON})"
)


def of_kind(results, kind):
    return [doubt for doubt in results.doubts if doubt.kind == kind]


def test_an_engine_that_did_not_batch_is_a_grave_doubt_that_names_signature_and_reason(results):
    (doubt,) = of_kind(results(plan(), "savedmodel", SERVED_UNBATCHED), "unbatched")
    assert doubt.severity == "grave" and SENTENCE in doubt.sentence and "max_batch_size: 1" in doubt.sentence
    assert len(doubt.runs) == 3 and all("savedmodel" in run for run in doubt.runs)


def test_every_verdict_sentence_names_it(results, capsys):
    found = results(plan(), "savedmodel", SERVED_UNBATCHED)
    assert found.verdicts and all(judged.unbatched == ["savedmodel"] for judged in found.verdicts)
    assert all(judged.verdict.reason.endswith(f"But {SENTENCE}.") for judged in found.verdicts)
    told = [sentence for sentence in summary(found) if "better" in sentence or "quivalent" in sentence]
    assert told and all(SENTENCE in sentence for sentence in told)
    assert all(better(found, metric) is None for metric in found.metrics)
    page = page_of(found)
    assert "batching did not happen" in [badge.text for badge in page.badges]
    (table,) = [part.table for section in page.sections if section.id == "verdicts" for part in section.parts]
    assert all("savedmodel did not batch" in row[-1] for row in table.rows)
    assert SENTENCE in markdown(page).replace("\\", "") and REASON in render(page)
    print_results(found)
    assert SENTENCE in capsys.readouterr().out
    print_paper(found)
    assert "savedmodel did not batch" in capsys.readouterr().out


def test_a_comparison_of_two_runs_names_it(results, tmp_path):
    found = results(plan(), "savedmodel", SERVED_UNBATCHED)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(found.as_json()))
    notes = compare(file, file).notes
    assert [note for note in notes if note.startswith("NEW: ") and SENTENCE in note]


def test_a_server_whose_queue_counted_nothing_did_not_batch(results):
    readings = [(REQUESTS, [0, 100, 900]), (QUEUED, [0, 0, 0])]
    found = results(plan("tfserving, torchserve"), "tfserving", readings)
    (doubt,) = of_kind(found, "unbatched")
    assert doubt.sentence.startswith("TensorFlow Serving served 900 of 900 requests unbatched")
    assert "queue counted no request" in doubt.sentence


@pytest.mark.parametrize(
    ("text", "engine", "readings"),
    [
        (plan(), "savedmodel", [(REQUESTS, [0, 900]), (QUEUED, [0, 900]), (PAST_THE_QUEUE, [0, 0])]),
        (plan(), "savedmodel", [(REQUESTS, [0, 9000]), (QUEUED, [None, 8990]), (PAST_THE_QUEUE, [0, 10])]),
        (plan(), "savedmodel", [(REQUESTS, [0, 900]), (QUEUED, [None, 900]), (PAST_THE_QUEUE, [7, 7])]),
        (plan(batching="{max_batch_size: 1}"), "savedmodel", [(REQUESTS, [0, 900])]),
        (plan(), "torchserve", []),
        (plan(), "savedmodel", []),
    ],
    ids=["batched", "a few", "before the load", "not asked for", "TorchServe counts neither", "no request"],
)
def test_an_engine_that_batched_or_was_not_asked_to_gives_no_doubt(results, text, engine, readings):
    found = results(text, engine, readings)
    assert not of_kind(found, "unbatched") and not any(judged.unbatched for judged in found.verdicts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (plan(more="images_per_request: [1, 4]"), ["of 8 is at most 8 images there and up to 32 here"]),
        (plan(more="images_per_request: 4", batching="{max_batch_size: 1}"), []),
        (plan(more="images_per_request: 4", engines="savedmodel, tfserving"), []),
        (plan(), []),
    ],
)
def test_batches_that_engines_count_in_other_units_are_doubted(results, text, expected):
    found = of_kind(results(text, "none", []), "batch_units")
    assert len(found) == len(expected)
    assert all(words in doubt.sentence for words, doubt in zip(expected, found, strict=True))
