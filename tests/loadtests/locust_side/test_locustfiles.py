"""The locustfiles as a person starts them: by hand, headless, from any directory."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from loadtests.options import options_for
from serving.ports import free_ports
from tests.loadtests.generator.loads import known_server
from tests.loadtests.locust_side.locust_processes import LocustProcess, exit_code_of
from tests.source_tree import ROOT

LOADTESTS = ROOT / "loadtests"


# A test run in a shell's background has Ctrl-C switched off, and its children inherit that.
WITH_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


def start_by_hand(locustfile, *arguments, cwd):
    """A process as a shell starts it."""
    command = [sys.executable, "-c", WITH_CTRL_C, sys.executable, *locust_arguments(locustfile, *arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_with_servestorm(locustfile, *arguments, cwd):
    """The same by `servestorm load`."""
    ours = [sys.executable, "-m", "servestorm", "load", locustfile.removesuffix(".py"), "--headless", "--only-summary"]
    command = [sys.executable, "-c", WITH_CTRL_C, *ours, *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start(locustfile, *arguments, cwd):
    """The same of a process that has imported Locust."""
    return LocustProcess(locust_arguments(locustfile, *arguments), cwd)


def locust_arguments(locustfile, *arguments):
    return ["-m", "locust", "-f", str(LOADTESTS / locustfile), "--headless", "--only-summary", *map(str, arguments)]


def locust(locustfile, *arguments, cwd, start=start):
    process = start(locustfile, *arguments, cwd=cwd)
    try:
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, output


def summary_in(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("locustfile", ["steady.py", "bursty.py"])
def test_a_load_ends_by_itself_with_samples_and_a_summary_that_agree(locustfile, tmp_path):
    with known_server("--fixed-ms", 1) as port:
        arguments = ["--engine", "http", "--rate", 100, "--duration", 2, "--warmup", 0.5, "--out", tmp_path / "out"]
        code, output = locust(
            locustfile, "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path, start=start_by_hand
        )
    summary = summary_in(tmp_path / "out")
    assert code == exit_code_of(summary), output
    table = pq.read_table(tmp_path / "out" / "samples.parquet")
    measured = table.num_rows - sum(table["warmup"].to_pylist())
    assert summary["scheduled"] == summary["sent"] == summary["ok"] == measured > 0
    assert sum(table["warmup"].to_pylist()) == 50
    assert summary["answers"] == "unchecked"
    assert not (tmp_path / "out" / "samples.parts").exists()


def test_a_foreign_models_package_in_the_working_directory_does_no_harm(tmp_path):
    for name in ("models", "serving", "loadtests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package was imported')\n")
    with known_server() as port:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--duration", 1]
        code, output = locust("steady.py", *arguments, cwd=tmp_path, start=start_by_hand)
    assert code in (0, 4), output
    assert "wrong package" not in output


def test_bundled_digits_are_sent_where_no_manifest_is_named(tmp_path):
    with known_server() as port:
        arguments = ["--engine", "torchserve", "--rate", 50, "--duration", 1, "--warmup", 0, "--out", tmp_path]
        _, output = locust("steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
    summary = summary_in(tmp_path)
    assert (summary["answers"], summary["ok"]) == ("unchecked", 50), output


def test_how_a_trace_was_read_is_printed_once_and_recorded(tmp_path):
    (tmp_path / "t.csv").write_text("arrival_ms,size\n1700000000000,5\n1700000000300,7\n")
    with known_server() as port:
        arguments = ["--engine", "http", "--arrivals", "trace", "--trace", "t.csv", "--duration", 1, "--warmup", 0]
        _, output = locust(
            "steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, "--out", tmp_path, cwd=tmp_path
        )
    assert output.count("trace t.csv is read as timestamps-ms (detected; --trace-format names another)") == 1, output
    arrivals = summary_in(tmp_path)["arrivals"]
    assert (arrivals["format"], arrivals["column"], arrivals["detected"]) == ("timestamps-ms", "arrival_ms", True)


@pytest.mark.parametrize("wanted", ["on", "off"])
def test_the_core_is_kept_awake_only_while_the_load_runs_and_the_summary_says_so(wanted, tmp_path):
    with known_server("--fixed-ms", 1) as port:
        arguments = ["--engine", "http", "--duration", 3, "--warmup", 0, "--keep-awake", wanted, "--out", tmp_path]
        process = start("steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
        while not list((tmp_path / "samples.parts").glob("*.parquet")):
            assert process.poll() is None, process.stdout.read()
        spinning = [c for c in psutil.Process(process.pid).children() if "SCHED_IDLE" in " ".join(c.cmdline())]
        process.communicate(timeout=120)
    assert len(spinning) == (wanted == "on")
    assert not any(child.is_running() for child in spinning)
    assert any("idle priority" in note for note in summary_in(tmp_path)["notes"]) == (wanted == "on")


def test_what_keeps_the_core_awake_does_not_outlive_a_killed_load(tmp_path):
    with known_server("--fixed-ms", 1) as port:
        arguments = ["--engine", "http", "--duration", 60, "--warmup", 0, "--keep-awake", "on", "--out", tmp_path]
        process = start("steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
        while not list((tmp_path / "samples.parts").glob("*.parquet")):
            assert process.poll() is None, process.stdout.read()
        (spinning,) = psutil.Process(process.pid).children()
        process.kill()
        process.communicate()
    psutil.wait_procs([spinning], timeout=30)
    assert not spinning.is_running()


@pytest.mark.parametrize("begun", [start_by_hand, start_with_servestorm])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_load_keeps_what_it_measured_and_divides_by_the_time_that_passed(tmp_path, number, begun):
    with known_server("--fixed-ms", 1) as port:
        arguments = ["--engine", "http", "--rate", 100, "--duration", 600, "--warmup", 0, "--out", tmp_path]
        process = begun("steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
        while not list((tmp_path / "samples.parts").glob("*.parquet")):
            assert process.poll() is None, process.stdout.read()
        process.send_signal(number)
        told, _ = process.communicate(timeout=120)
    summary = summary_in(tmp_path)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert summary["ok"] > 0
    assert "the load was stopped before its end" in summary["reasons"]
    assert summary["duration_s"] == 600
    assert summary["offered_rate"] == pytest.approx(summary["scheduled"] / summary["measured_s"])
    # even arrivals, one each 10 ms: one more or less at the end
    assert summary["measured_s"] == pytest.approx(summary["scheduled"] / 100, abs=0.1)


def test_a_killed_load_leaves_parts_that_can_be_merged(tmp_path):
    from loadtests.samples.recorder import merge_parts

    with known_server("--fixed-ms", 1) as port:
        arguments = ["--engine", "http", "--rate", 100, "--duration", 60, "--warmup", 0, "--out", tmp_path]
        process = start("steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
        while len(list((tmp_path / "samples.parts").glob("*.parquet"))) < 2:
            assert process.poll() is None, process.stdout.read()
        process.kill()
        process.communicate()
    assert pq.read_table(merge_parts(tmp_path)).num_rows > 50


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--engine", "http"], 2, "no target: give --host http://HOST:PORT"),
        (["--host", "ftp://x", "--engine", "http"], 2, "'ftp://x' has the scheme 'ftp'"),
        (["--host", "http://127.0.0.1:1/p", "--engine", "http"], 2, "has a path"),
        (["--host", "http://no.such.host.invalid", "--engine", "http"], 3, "does not resolve"),
        (["--host", "http://127.0.0.1:1"], 3, "does not answer (connection refused)"),
        (["--host", "http://127.0.0.1:1", "--engine", "http", "--rate", "0"], 2, "--rate must be over 0"),
        (["--host", "http://127.0.0.1:1", "--engine", "http", "--rate", "-3"], 2, "--rate must be over 0"),
        (["--host", "http://127.0.0.1:1", "--engine", "http", "--protocol", "grpc"], 2, "plain HTTP only"),
        (["--host", "http://127.0.0.1:1", "--engine", "http", "--arrivals", "trace"], 2, "needs --trace FILE"),
        (["--host", "http://127.0.0.1:1", "--engine", "torchserve", "--manifest", "no.json"], 2, "does not exist"),
        (["--host", "http://127.0.0.1:1", "--engine", "http", "-t", "3s"], 2, "leaves nothing after a warm-up"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_before_the_load(arguments, code, sentence, tmp_path):
    found, output = locust("steady.py", *arguments, cwd=tmp_path)
    assert found == code, output
    lines = [line for line in output.splitlines() if line.startswith("servestorm: ")]
    assert len(lines) == 1, output
    assert sentence in lines[0]
    assert "Traceback" not in output


def test_a_worker_imports_neither_tensorflow_nor_torch_and_stays_small(tmp_path):
    """Small: at most 35 MB more than Locust and the libraries that samples are written with, on the same machine."""
    libraries = "import locust.main, locust.contrib.fasthttp, numpy, pyarrow.csv, pyarrow.parquet, pydantic\n"
    locustfile = (
        "import sys; sys.argv = ['locust']; sys.path.insert(0, sys.path[0])\n"
        f"from locust.util.load_locustfile import load_locustfile; load_locustfile({str(LOADTESTS / 'steady.py')!r})\n"
    )
    assert peak_and_heavy_modules(locustfile, tmp_path)[1] == "[]"
    ours, theirs = (peak_and_heavy_modules(program, tmp_path)[0] for program in (locustfile, libraries))
    assert ours < theirs + 35, f"{ours} MB, of which libraries {theirs} MB"


def peak_and_heavy_modules(program: str, cwd: Path) -> tuple[int, str]:
    """Megabytes that the program took at most, and which of the frameworks it imported."""
    told = (
        "import sys\n"
        "heavy = {'tensorflow', 'torch', 'tensorflow_serving', 'ts', 'sklearn', 'scipy', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        # Not ru_maxrss, which a child inherits from whoever forked it.
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(int(peak.split()[1]) // 1024, sorted(heavy))"
    )
    command = [sys.executable, "-c", program + told]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=True)
    megabytes, modules = done.stdout.strip().split(" ", 1)
    return int(megabytes), modules


@pytest.mark.parametrize("locustfile", ["steady.py", "bursty.py"])
def test_every_option_is_explained_by_help(locustfile, tmp_path):
    command = [sys.executable, LOADTESTS / locustfile, "--help"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for option in options_for("constant"):
        assert option.flag in output
    assert "requests/s" in output


def test_no_option_of_ours_shadows_one_of_locust_s(tmp_path):
    program = "from locust.argument_parser import default_args_dict; print(*default_args_dict())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "num_users" in done.stdout
    assert not {option.dest for option in options_for("constant")} & set(done.stdout.split())


def test_a_locustfile_run_as_a_program_is_locust(tmp_path):
    with known_server() as port:
        command = [sys.executable, LOADTESTS / "steady.py", "--headless", "--host", f"http://127.0.0.1:{port}"]
        arguments = ["--engine", "http", "--duration", "1", "--warmup", "0"]
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "50 of 50 answered" in done.stderr


def test_the_generator_s_metrics_can_be_scraped_while_it_runs(tmp_path):
    (metrics_port,) = free_ports(1)
    with known_server("--fixed-ms", 20) as port:
        arguments = ["--engine", "http", "--rate", 100, "--duration", 60, "--metrics-port", metrics_port]
        process = start("steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
        try:
            found, warming_up = {}, []
            while found.get("servestorm_requests_total", 0) < 100:
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.1)
                found = _scrape(metrics_port)
                warming_up += [found["servestorm_sent_total"]] if found.get("servestorm_sent_total") == 0 else []
        finally:
            process.kill()
            process.communicate()
    assert found["servestorm_offered_total"] >= found["servestorm_sent_total"] >= 100
    # the warm-up of 5 s is in no figure
    assert len(warming_up) > 10
    assert found["servestorm_latency_seconds_count"] >= 100
    assert 0.02 <= found["servestorm_latency_seconds_sum"] / found["servestorm_latency_seconds_count"] < 0.2


def _scrape(port):
    try:
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    except requests.ConnectionError:
        return {}
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: sample.value for sample in samples if sample.labels.get("outcome", "ok") == "ok"}


def test_the_metrics_listen_where_asked_and_say_so_where_they_cannot(tmp_path):
    with known_server() as port:
        asked = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--duration", 1, "--metrics-port", 9646]
        # 192.0.2.1 is kept for documentation: no machine has it
        code, output = locust("steady.py", *asked, "--metrics-host", "192.0.2.1", cwd=tmp_path)
    assert code == 3
    assert "--metrics-port 9646 cannot be bound on 192.0.2.1: Cannot assign requested address." in output


def test_locust_s_own_user_counts_are_ignored_with_a_warning(tmp_path):
    with known_server() as port:
        arguments = ["--engine", "http", "--rate", 50, "--duration", 1, "--warmup", 0, "-u", 20, "-r", 5]
        _, output = locust("steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
    assert "-u and -r are ignored" in output
    assert "50 of 50 answered" in output


def test_locust_s_csv_shows_the_same_requests(tmp_path):
    with known_server("--fixed-ms", 5) as port:
        arguments = ["--engine", "http", "--rate", 50, "--duration", 2, "--warmup", 0, "--csv", tmp_path / "table"]
        locust("steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
    header, row, *_ = (tmp_path / "table_stats.csv").read_text().splitlines()
    found = dict(zip(header.split(","), row.split(","), strict=False))
    assert int(found["Request Count"]) == 100
    assert float(found["Min Response Time"]) >= 5


@pytest.mark.parametrize("loop", [["--rate", 100], ["--closed-loop", 3]], ids=["open", "closed"])
def test_warm_up_is_in_no_figure_of_locust(loop, tmp_path):
    with known_server("--fixed-ms", 5) as port:
        arguments = ["--engine", "http", *loop, "--duration", 2, "--warmup", 2, "--out", tmp_path / "out"]
        arguments += ["--csv", tmp_path / "table", "--json-file", tmp_path / "table"]
        _, output = locust("steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
    summary = summary_in(tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "table_stats.csv").open()))
    (entry,) = json.loads((tmp_path / "table.json").read_text())
    assert {int(row["Request Count"]) for row in rows} == {summary["scheduled"]}, output
    assert entry["num_requests"] == sum(entry["num_reqs_per_sec"].values()) == summary["scheduled"]
    assert sum(entry["response_times"].values()) == summary["ok"]
    assert entry["max_response_time"] == pytest.approx(summary["latency_ms"]["max"])
    # Locust's rate is over the time from the end of the warm-up to the last answer.
    assert float(rows[-1]["Requests/s"]) == pytest.approx(summary["requests_per_s"], rel=0.1)
    history = list(csv.DictReader((tmp_path / "table_stats_history.csv").open()))
    assert int(history[-1]["Total Request Count"]) == summary["scheduled"]


def test_failures_of_the_warm_up_are_in_no_figure(tmp_path):
    with known_server("--misbehave", "http-503") as port:
        arguments = ["--engine", "http", "--rate", 50, "--duration", 1, "--warmup", 1, "--out", tmp_path / "out"]
        arguments += ["--csv", tmp_path / "table"]
        _, output = locust("steady.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
    summary = summary_in(tmp_path / "out")
    (failure,) = csv.DictReader((tmp_path / "table_failures.csv").open())
    assert summary["errors"] == {"http_error": 50}, output
    assert sum(summary["error_details"].values()) == int(failure["Occurrences"]) == 50


LISTENING = f"""
import runpy
from locust import events
globals().update(runpy.run_path({str(LOADTESTS / "steady.py")!r}))
calls = []


@events.request.add_listener
def listen(**call):
    calls.append((call["name"], call["response_time"], call["start_time"]))


@events.quit.add_listener
def tell(**_):
    assert all(time_ms >= 5 and start_s > 1e9 for _, time_ms, start_s in calls)
    open("calls", "w").write(str(len(calls)))
"""


def test_a_person_s_listener_gets_each_measured_request_and_locust_counts_it_once(tmp_path):
    (tmp_path / "own.py").write_text(LISTENING)
    with known_server("--fixed-ms", 5) as port:
        arguments = ["--engine", "http", "--rate", 50, "--duration", 1, "--warmup", 1, "--csv", tmp_path / "table"]
        _, output = locust(tmp_path / "own.py", "--host", f"http://127.0.0.1:{port}", *arguments, cwd=tmp_path)
    rows = list(csv.DictReader((tmp_path / "table_stats.csv").open()))
    assert (tmp_path / "calls").read_text() == "50", output
    assert [int(row["Request Count"]) for row in rows] == [50, 50]


def test_a_manifest_that_is_none_is_told_before_the_server_is_asked(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    given = ["--host", "http://127.0.0.1:9", "--rate", 5, "--duration", 1, "--warmup", 0, "--manifest", "broken.json"]
    code, output = locust("steady.py", *given, cwd=tmp_path)
    assert code == 2
    assert "--manifest broken.json is no manifest.json" in output
