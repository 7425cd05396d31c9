"""Loads in turns, as a study starts them: one headless process an engine, at the same moment."""

import json
import time
from contextlib import ExitStack

import numpy as np
import pyarrow.parquet as pq
import pytest

from loadtests.generator.jobs import OUTCOMES
from tests.loadtests.generator.loads import known_server
from tests.loadtests.locust_side.locust_processes import LocustProcess, exit_code_of
from tests.source_tree import ROOT

STEADY = ROOT / "loadtests" / "steady.py"
TURNS = {
    "a": [(0.0, 0.5, 0.0), (2.0, 0.2, 1.0), (5.0, 0.2, 1.0)],
    "b": [(1.0, 0.5, 0.0), (3.5, 0.2, 1.0), (6.5, 0.2, 1.0)],
}


def write_turns(folder, turns):
    path = folder / "turns.json"
    entries = [dict(zip(("begin_s", "lead_s", "length_s"), turn, strict=True)) for turn in turns]
    path.write_text(json.dumps({"turns": entries}))
    return path


def start(folder, *arguments):
    command = ["-m", "locust", "-f", STEADY, "--headless", "--only-summary", "--engine", "http", "--out", folder]
    return LocustProcess([str(each) for each in (*command, *arguments)], folder)


def read(folder):
    return json.loads((folder / "summary.json").read_text()), pq.read_table(folder / "samples.parquet")


def test_two_generators_take_turns_with_the_same_arrivals_and_no_sample_is_lost(tmp_path):
    start_ns = time.monotonic_ns() + 15_000_000_000
    with known_server("--fixed-ms", 1) as port, ExitStack() as stack:
        processes = {}
        for name, turns in TURNS.items():
            (tmp_path / name).mkdir()
            arguments = ["--host", f"http://127.0.0.1:{port}", "--arrivals", "poisson", "--seed", 3, "--rate", 100]
            arguments += ["--duration", 2, "--warmup", 0, "--turns", write_turns(tmp_path / name, turns)]
            arguments += ["--start-at-ns", start_ns, "--json-file", tmp_path / name / "locust"]
            processes[name] = start(tmp_path / name, *arguments)
            stack.callback(processes[name].kill)
        output = {name: process.communicate(timeout=120)[0] for name, process in processes.items()}
    arrivals = {}
    for name, turns in TURNS.items():
        summary, table = read(tmp_path / name)
        assert processes[name].returncode == exit_code_of(summary), output[name]
        after_ns = np.sort(table["scheduled_ns"].to_numpy() - start_ns)
        begins_ns = [round((begin + lead) * 1e9) for begin, lead, length in turns if length]
        inside = [(after_ns >= begin) & (after_ns < begin + 1_000_000_000) for begin in begins_ns]
        arrivals[name] = [(after_ns[own] - begin).tolist() for own, begin in zip(inside, begins_ns, strict=True)]
        measured = int(np.sum(inside))
        warmup = table["warmup"].to_numpy()
        assert (summary["scheduled"], summary["slices"], int((~warmup).sum())) == (measured, 2, measured)
        assert int(warmup.sum()) == 50 + 2 * 20
        assert (summary["duration_s"], summary["warmup_s"]) == (2.0, pytest.approx(begins_ns[0] / 1e9))
        assert 0 <= summary["cpu_share"] < 5
        assert summary["offered_rate"] == pytest.approx(measured / 2)
        (entry,) = json.loads((tmp_path / name / "locust.json").read_text())
        assert (entry["num_requests"], sum(entry["num_reqs_per_sec"].values())) == (measured, measured)
        assert entry["last_request_timestamp"] - entry["start_time"] < 2.5
    assert arrivals["a"] == arrivals["b"]


def test_a_start_that_is_over_is_refused_in_one_sentence(tmp_path):
    with known_server("--fixed-ms", 1) as port:
        process = start(tmp_path, "--host", f"http://127.0.0.1:{port}", "--start-at-ns", 1)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    assert "after the moment of --start-at-ns: give a later one." in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "arguments", [["--csv", "table"], ["--html", "report.html"], ["--master", "--expect-workers", "2"]]
)
@pytest.mark.parametrize("asked", ["turns", "start"])
def test_what_would_show_the_waits_between_turns_as_load_is_refused(arguments, asked, tmp_path):
    turns = ["--turns", write_turns(tmp_path, [(0, 0, 30)]), "--warmup", 0]
    options = turns if asked == "turns" else ["--start-at-ns", 10**18]
    process = start(tmp_path, "--host", "http://127.0.0.1:1", *options, *arguments)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    lines = [line for line in output.splitlines() if line.startswith("servestorm: ")]
    assert len(lines) == 1 and "are for one headless process" in lines[0], output


def test_a_load_that_is_given_up_says_so_and_ends_early(tmp_path):
    with known_server("--fixed-ms", 2_000) as port:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--rate", 50, "--duration", 200, "--warmup", 0]
        process = start(tmp_path, *arguments, "--give-up-in-flight", 30)
        output, _ = process.communicate(timeout=100)
    summary, table = read(tmp_path)
    assert process.returncode == 4, output
    assert summary["gave_up"]
    assert summary["reasons"][0].endswith(" s: 30 requests were under way at once")
    assert summary["scheduled"] == table.num_rows == 30
    assert set(table["outcome"].to_pylist()) <= set(OUTCOMES)
