"""A master and its workers share one schedule, and account for every arrival whatever becomes of a worker."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pyarrow.parquet as pq
import pytest

from serving.ports import free_ports
from tests.loadtests.generator.loads import known_server
from tests.loadtests.locust_side.locust_processes import LocustProcess, exit_code_of
from tests.source_tree import ROOT

STEADY = ROOT / "loadtests" / "steady.py"


@contextmanager
def cluster(workers, *arguments, cwd, worker_cwd=None, worker_locust=("-m", "locust")):
    """Master and workers as processes; gone when the block ends."""
    port = str(free_ports(1)[0])
    options = ["-f", str(STEADY), "--headless", "--only-summary"]
    worker_command = [*worker_locust, *options, "--worker", "--master-port", port]
    master_command = ["-m", "locust", *options, "--master", "--expect-workers", str(workers)]
    master_command += ["--master-bind-port", port]
    with ExitStack() as stack:

        def launch(command, cwd=cwd):
            process = LocustProcess(command, cwd)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        master = launch([*master_command, *map(str, arguments)])
        yield master, [launch(worker_command, worker_cwd or cwd) for _ in range(workers)]


def read(folder):
    return json.loads((folder / "summary.json").read_text()), pq.read_table(folder / "samples.parquet")


@pytest.mark.parametrize("workers", [3, 10])
def test_the_union_of_several_workers_is_the_schedule(workers, tmp_path):
    with known_server("--fixed-ms", 2) as port, ExitStack() as stack:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--rate", 150, "--duration", 3]
        arguments += ["--warmup", 0, "--arrivals", "poisson", "--seed", 4, "--out", tmp_path / "out"]
        master, _ = stack.enter_context(cluster(workers, *arguments, cwd=tmp_path))
        output, _ = master.communicate(timeout=300)
    assert (tmp_path / "out" / "summary.json").exists(), output
    summary, samples = read(tmp_path / "out")
    from loadtests.arrivals.processes import poisson

    scheduled = np.sort(samples["scheduled_ns"].to_numpy())
    asked = poisson(150, 3, 4).whole()
    assert len(scheduled) == len(asked), output
    assert (scheduled - scheduled[0] == asked - asked[0]).all()
    assert summary["workers"] == workers
    assert summary["scheduled"] == len(asked)
    # a machine that is busy with other things may keep a worker from a sign of life for seconds
    lost = summary["errors"].get("lost_worker", 0)
    assert summary["sent"] == summary["ok"] == len(asked) - lost, summary["reasons"]
    assert master.returncode == exit_code_of(summary)


def test_a_killed_worker_is_named_and_its_arrivals_are_counted_as_lost(tmp_path):
    with known_server("--fixed-ms", 2) as port, ExitStack() as stack:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--rate", 90, "--duration", 12]
        arguments += ["--warmup", 0, "--out", tmp_path / "out"]
        master, workers = stack.enter_context(cluster(3, *arguments, cwd=tmp_path))
        parts = tmp_path / "out" / "samples.parts"
        until = time.monotonic() + 240
        while len(list(parts.glob("*.parquet"))) < 3:
            assert master.poll() is None, master.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.05)
        workers[1].send_signal(signal.SIGKILL)
        output, _ = master.communicate(timeout=300)
    summary, _ = read(tmp_path / "out")
    lost = summary["errors"]["lost_worker"]
    assert 50 < lost < 360, output
    assert summary["sent"] + summary["dropped"] + lost == summary["scheduled"] == 90 * 12
    assert not summary["valid"]
    assert any("was lost" in reason for reason in summary["reasons"])
    assert master.returncode == 4


def test_a_load_that_loses_all_its_workers_says_so(tmp_path):
    """Locust stops the test of a master without workers in a greenlet that ends with the master's runner."""
    with known_server("--fixed-ms", 2) as port, ExitStack() as stack:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--rate", 90, "--duration", 60]
        arguments += ["--warmup", 0, "--out", tmp_path / "out"]
        master, workers = stack.enter_context(cluster(1, *arguments, cwd=tmp_path))
        until = time.monotonic() + 240
        while not list((tmp_path / "out" / "samples.parts").glob("*.parquet")):
            assert master.poll() is None, master.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.05)
        workers[0].send_signal(signal.SIGKILL)
        output, _ = master.communicate(timeout=300)
    assert master.returncode == 4, output
    summary, samples = read(tmp_path / "out")
    assert "worker 1 of 1 was lost" in summary["reasons"]
    assert "the load was stopped before its end" in summary["reasons"]
    assert samples.num_rows == summary["scheduled"] == summary["ok"] + sum(summary["errors"].values())
    assert 0 < summary["errors"]["lost_worker"] < 60 * 90


CLOCK_SET_FORWARD = """
import itertools, time
from locust.main import main
real, hours = time.time, itertools.count()
time.time = lambda: real() + 3600 * next(hours)
main()
"""


def test_a_worker_whose_wall_clock_is_set_forward_stays(tmp_path):
    with known_server("--fixed-ms", 2) as port, ExitStack() as stack:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--rate", 90, "--duration", 5]
        arguments += ["--warmup", 0, "--out", tmp_path / "out"]
        forward = ("-c", CLOCK_SET_FORWARD)
        master, _ = stack.enter_context(cluster(1, *arguments, cwd=tmp_path, worker_locust=forward))
        output, _ = master.communicate(timeout=300)
    summary, _ = read(tmp_path / "out")
    assert (summary["ok"], summary["errors"]) == (5 * 90, {}), output
    assert master.returncode == exit_code_of(summary)


def test_a_worker_that_gives_up_ends_the_load_of_all(tmp_path):
    with known_server("--fixed-ms", 3_000) as port, ExitStack() as stack:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--rate", 40, "--duration", 200]
        arguments += ["--warmup", 0, "--give-up-in-flight", 20, "--out", tmp_path / "out"]
        master, _ = stack.enter_context(cluster(2, *arguments, cwd=tmp_path))
        output, _ = master.communicate(timeout=150)
    summary, _ = read(tmp_path / "out")
    assert summary["gave_up"], output
    assert any("20 requests were under way at once" in reason for reason in summary["reasons"])
    assert not any("stopped before its end" in reason for reason in summary["reasons"])
    assert master.returncode == 4


SLOW_AFTER_CONNECTING = """
import gevent
from locust.main import main
from locust.runners import WorkerRunner
connect = WorkerRunner.connect_to_master
WorkerRunner.connect_to_master = lambda runner: (connect(runner), gevent.sleep(1.5))
main()
"""


def test_a_worker_that_is_told_to_start_before_it_has_its_runner_asks_for_its_share(tmp_path):
    with known_server("--fixed-ms", 2) as port, ExitStack() as stack:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--rate", 90, "--duration", 2]
        arguments += ["--warmup", 0, "--out", tmp_path / "out"]
        slow = ("-c", SLOW_AFTER_CONNECTING)
        master, _ = stack.enter_context(cluster(1, *arguments, cwd=tmp_path, worker_locust=slow))
        output, _ = master.communicate(timeout=300)
    summary, _ = read(tmp_path / "out")
    assert (summary["workers"], summary["errors"]) == (1, {}), output
    assert sent_by_locusts_count(output) == summary["ok"] == summary["scheduled"] == 2 * 90


def sent_by_locusts_count(output):
    """What was sent by all workers, in no load of ours too."""
    return int(re.search(r"REST +cnn +(\d+)", output).group(1))


def test_warm_up_of_several_workers_is_in_no_figure_of_locust(tmp_path):
    with known_server("--fixed-ms", 2) as port, ExitStack() as stack:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--rate", 90, "--duration", 2]
        arguments += ["--warmup", 2, "--out", tmp_path / "out", "--csv", tmp_path / "table"]
        master, _ = stack.enter_context(cluster(2, *arguments, cwd=tmp_path))
        output, _ = master.communicate(timeout=300)
    summary, _ = read(tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "table_stats.csv").open()))
    assert sent_by_locusts_count(output) == summary["ok"] == summary["scheduled"] == 2 * 90, output
    assert {int(row["Request Count"]) for row in rows} == {2 * 90}
    assert float(rows[-1]["Requests/s"]) == pytest.approx(90, rel=0.1)


def test_a_worker_that_comes_late_takes_no_part_and_disturbs_nobody(tmp_path):
    with known_server("--fixed-ms", 2) as port, ExitStack() as stack:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--rate", 90, "--duration", 12]
        arguments += ["--warmup", 0, "--out", tmp_path / "out"]
        master, workers = stack.enter_context(cluster(2, *arguments, cwd=tmp_path))
        parts = tmp_path / "out" / "samples.parts"
        until = time.monotonic() + 240
        while not list(parts.glob("*.parquet")):
            assert master.poll() is None, master.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.05)
        late = LocustProcess(workers[0].args, tmp_path)
        stack.callback(late.wait)
        stack.callback(late.kill)
        output, _ = master.communicate(timeout=300)
    assert "came after the load was dealt: it takes no part" in output
    summary, _ = read(tmp_path / "out")
    assert summary["workers"] == 2
    assert sent_by_locusts_count(output) == summary["ok"] == summary["scheduled"], output


def test_a_closed_loop_is_divided_over_the_workers(tmp_path):
    with known_server("--fixed-ms", 20) as port, ExitStack() as stack:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--closed-loop", 5, "--duration", 2]
        arguments += ["--warmup", 0, "--out", tmp_path / "out"]
        master, _ = stack.enter_context(cluster(2, *arguments, cwd=tmp_path))
        output, _ = master.communicate(timeout=300)
    summary, samples = read(tmp_path / "out")
    sent, done = samples["sent_ns"].to_numpy(), samples["done_ns"].to_numpy()
    events = sorted([(t, 1) for t in sent] + [(t, -1) for t in done])
    assert max(np.cumsum([change for _, change in events])) == 5, output
    assert summary["loop"] == "closed"


def test_processes_of_one_command_share_the_load(tmp_path):
    with known_server("--fixed-ms", 2) as port:
        command = [sys.executable, "-m", "locust", "-f", STEADY, "--headless", "--only-summary", "--processes", "2"]
        (master_port,) = free_ports(1)
        arguments = ["--master-bind-port", master_port, "--master-port", master_port, "--engine", "http"]
        arguments += ["--host", f"http://127.0.0.1:{port}", "--rate", 100, "--duration", 2, "--warmup", 0]
        done = subprocess.run(
            [*map(str, command), *map(str, arguments), "--out", str(tmp_path / "out")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    summary, samples = read(tmp_path / "out")
    assert (summary["workers"], summary["ok"], samples.num_rows) == (2, 200, 200), done.stderr


def test_a_worker_that_cannot_do_its_share_stops_everybody_with_its_sentence(tmp_path):
    (tmp_path / "body.json").write_text("{}")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = ["--host", "http://127.0.0.1:9", "--engine", "http", "--http-body-file", "body.json"]
    with ExitStack() as stack:
        master, _ = stack.enter_context(cluster(1, *arguments, cwd=tmp_path, worker_cwd=elsewhere))
        output, _ = master.communicate(timeout=300)
    assert master.returncode == 2, output
    assert "--http-body-file body.json cannot be read" in output


@pytest.mark.parametrize("option", ["--web-host", "--master-bind-host"])
def test_what_locust_binds_to_every_interface_is_bound_to_loopback(option, tmp_path):
    program = (
        "import sys; sys.argv = ['locust']\n"
        f"from locust.util.load_locustfile import load_locustfile; load_locustfile({str(STEADY)!r})\n"
        "from locust.argument_parser import get_parser\n"
        f"print(getattr(get_parser().parse_args([]), {option.lstrip('-').replace('-', '_')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip() == "127.0.0.1"
