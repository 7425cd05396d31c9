"""A real study: trained, exported, served by real servers, loaded by the real generator, reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from serving import processes
from serving.orphans import OWNER_VARIABLE

pytestmark = pytest.mark.system

PLAN = """\
name: small
model: {name: cnn, dataset: digits, epochs: 1}
engines: [savedmodel, torchserve]
repetitions: 3
cold_starts: 1
steady: {rate_per_s: 30, duration_s: 2, warmup_s: 0.5}
bursty: {base_rate: 20, peak_rate: 40, on_s: 0.5, off_s: 0.5, duration_s: 2, warmup_s: 0.5}
scaling: {replicas: [1, 2], concurrency: 4, duration_s: 1, warmup_s: 0.5, repetitions: 1}
disturbance: ignored
"""
"""What other programs do, such as other tests, ends no study."""


@pytest.fixture
def study(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A study that is carried out in `tmp_path`; ended with the test, whatever became of that."""
    (tmp_path / "plan.yaml").write_text(PLAN)
    with subprocess.Popen(
        [sys.executable, "-m", "servestorm.cli.main", "run", "plan.yaml"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as process:
        yield process
        if process.poll() is None:
            process.terminate()


def left_of(owner: int) -> list[int]:
    return [pid for pid, tag in processes.tagged(OWNER_VARIABLE) if tag.startswith(f"{owner}:")]


@pytest.mark.timeout(1200)
def test_a_study_from_nothing_to_a_report(study, tmp_path):
    out, err = study.communicate(timeout=1190)
    # 4 where a busy machine made every run of a scenario INVALID: an honest end too, with everything written
    assert study.returncode in (0, 4), err
    assert left_of(study.pid) == []
    (run,) = (tmp_path / "runs").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert results["state"] == "complete"
    assert {r["state"] for r in results["runs"]} == {"complete"}
    assert results["models"][0]["parity"]["status"] == "proved"
    loaded = [r for r in results["runs"] if r["scenario"] != "coldstart"]
    assert all(r["samples"] == r["requests"] > 0 for r in loaded)
    starts = [r["numbers"]["total_s"] for r in results["runs"] if r["scenario"] == "coldstart"]
    assert all(0.5 < seconds < 120 for seconds in starts)
    for cell in (run / "cells").glob("*-steady-*"):
        summary = json.loads((cell / "summary.json").read_text())
        own = next(r for r in results["runs"] if r["id"] == cell.name)
        assert summary["answers"] == "checked"
        assert own["numbers"]["mean_ms"] == pytest.approx(summary["latency_ms"]["mean"])
        assert own["numbers"]["p50"] == pytest.approx(summary["latency_ms"]["p50"])
        assert pq.read_table(cell / "metrics.parquet").num_rows > 0
    assert "savedmodel (embedded, not TensorFlow Serving)" in out
    assert f"report: {run / 'report.html'}" in out


@pytest.mark.timeout(300)
def test_ctrl_c_during_training_leaves_no_process_and_no_half_model(study, tmp_path):
    assert "train and export" in study.stderr.readline()
    while not left_of(study.pid):  # the process that trains
        assert study.poll() is None
        time.sleep(0.01)
    study.send_signal(signal.SIGINT)
    _, err = study.communicate(timeout=60)
    assert study.returncode == 130, err
    assert "nothing was measured yet" in err
    assert left_of(study.pid) == []
    assert not (tmp_path / "build" / "models" / "cnn").exists()
