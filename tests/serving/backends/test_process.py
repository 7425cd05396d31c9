"""The process backend, around a stand-in server: starts, watches, measures and always tears down."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from models.errors import ModelError
from serving import processes
from serving.backends import process as process_backend
from serving.deployment import Event, EventLog
from serving.errors import DeploymentError, ServingError
from serving.ports import free_ports
from serving.probe import first_answer, http_get
from serving.wire import WIRES

TIMEOUT_S = 30
NEVER_S = 3600  # whoever waits this long fails by its test's own limit


def pid_of(deployment, replica: int = 0) -> int:
    return deployment._replicas[replica]._process.pid


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def names(events, replica: int = 0) -> list[str]:
    return [event.name for event in events.events if event.replica == replica]


def test_a_replica_is_spawned_bound_ready_and_stopped_in_that_order_and_time(begin):
    deployment, events = begin("well")
    deployment.wait_ready(TIMEOUT_S)
    pid = pid_of(deployment)
    deployment.stop()
    assert names(events) == ["spawned", "port_bound", "ready", "stopped"]
    times = [event.t_ns for event in events.events]
    assert times == sorted(times)
    assert not runs(pid)


def test_stopping_twice_is_harmless(begin):
    deployment, events = begin("well")
    deployment.stop()
    deployment.stop()
    assert names(events).count("stopped") == 1
    assert deployment.endpoints == []


@pytest.mark.timeout(TIMEOUT_S * 2)
def test_a_crash_at_the_start_is_told_with_the_exit_code_and_the_last_log_lines(begin):
    deployment, _ = begin("crash")
    with pytest.raises(DeploymentError, match=r"(?s)fake replica 0 ended with exit code 7\..*the weights are"):
        deployment.wait_ready(NEVER_S)
    assert not deployment.alive()


@pytest.mark.timeout(TIMEOUT_S * 2)
def test_a_server_that_says_it_cannot_load_the_model_ends_the_wait_though_it_lives(begin):
    deployment, _ = begin("broken")
    with pytest.raises(DeploymentError, match=r"cannot load the model \(FATAL: the weights are missing\)"):
        deployment.wait_ready(NEVER_S)
    assert deployment.alive()


def test_a_server_is_not_asked_before_its_precursor_appears(begin, tmp_path):
    deployment, events = begin("announced")
    with pytest.raises(DeploymentError, match="not ready within"):
        deployment.wait_ready(1)
    (tmp_path / "work" / "replica-0" / "precursor").touch()
    deployment.wait_ready(TIMEOUT_S)
    assert names(events)[-1] == "ready"


@pytest.mark.timeout(TIMEOUT_S * 2)
def test_one_crashed_replica_of_two_ends_the_wait_for_both(begin):
    deployment, _ = begin("hang", "crash", replicas=2)
    with pytest.raises(DeploymentError, match="replica"):
        deployment.wait_ready(NEVER_S)
    assert not deployment.alive()


def test_a_server_that_never_binds_its_port_is_told_after_the_timeout(begin):
    deployment, events = begin("hang")
    with pytest.raises(DeploymentError, match=r"not ready within 0\.3 s"):
        deployment.wait_ready(0.3)
    pid = pid_of(deployment)
    deployment.stop()
    assert names(events) == ["spawned", "stopped"]
    assert not runs(pid)


def test_a_server_that_dies_later_is_no_longer_alive_nor_ready(begin):
    deployment, _ = begin("well")
    deployment.wait_ready(TIMEOUT_S)
    os.kill(pid_of(deployment), signal.SIGKILL)
    deployment._replicas[0]._process.wait(TIMEOUT_S)
    assert not deployment.alive()
    with pytest.raises(DeploymentError, match="ended with signal 9"):
        deployment.wait_ready(TIMEOUT_S)


def test_a_server_that_ignores_sigterm_is_killed(begin, monkeypatch):
    monkeypatch.setattr(process_backend, "STOP_GRACE_S", 0.2)
    deployment, _ = begin("stubborn")
    deployment.wait_ready(TIMEOUT_S)
    pid = pid_of(deployment)
    deployment.stop()
    assert not runs(pid)


def test_children_and_daemonised_grandchildren_end_with_the_deployment(begin, tmp_path):
    deployment, _ = begin("family")
    deployment.wait_ready(TIMEOUT_S)
    pids = [int(pid) for pid in (tmp_path / "work" / "replica-0" / "family").read_text().split()]
    assert len(pids) == 3 and all(map(runs, pids))
    deployment.stop()
    assert not any(map(runs, pids))


def test_ctrl_c_while_stopping_still_stops_everything_and_is_passed_on(begin, monkeypatch):
    deployment, _ = begin("well", "well", replicas=2)
    deployment.wait_ready(TIMEOUT_S)
    pids = [pid_of(deployment, 0), pid_of(deployment, 1)]

    def interrupted(_replicas):
        raise KeyboardInterrupt

    monkeypatch.setattr(process_backend, "_ask_to_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deployment.stop()
    assert not any(map(runs, pids))


def test_ctrl_c_while_starting_leaves_nothing(begin, monkeypatch):
    spawned = []
    real = subprocess.Popen

    def popen(*args, **kwargs):
        spawned.append(real(*args, **kwargs))
        raise KeyboardInterrupt  # the process runs, and nobody has its handle yet

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt):
        begin("well")
    monkeypatch.undo()
    assert spawned[0].wait(TIMEOUT_S) != 0


def test_replicas_share_the_cpu_set_and_the_caller_keeps_its_own(begin):
    os.sched_setaffinity(0, range(os.cpu_count()))
    before = os.sched_getaffinity(0)
    cpu = max(before)
    deployment, _ = begin("well", cpus=(cpu,))
    deployment.wait_ready(TIMEOUT_S)
    assert os.sched_getaffinity(pid_of(deployment)) == {cpu}
    assert f"cpus [{cpu}]" in deployment.logs()
    assert os.sched_getaffinity(0) == before


def test_a_cpu_that_does_not_exist_is_named(begin):
    with pytest.raises(ServingError, match="CPU 4000 is not available"):
        begin("well", cpus=(0, 4000))


def test_each_replica_has_an_endpoint_of_its_own(begin):
    deployment, _ = begin("well", replicas=2)
    deployment.wait_ready(TIMEOUT_S)
    urls = [endpoint.rest_url for endpoint in deployment.endpoints]
    assert len(set(urls)) == 2
    assert all(http_get(f"{url}/ready", 30) for url in urls)


def test_scaling_up_and_down_starts_and_stops_single_replicas(begin):
    deployment, events = begin("well")
    deployment.wait_ready(TIMEOUT_S)
    first = pid_of(deployment)
    deployment.scale(2)
    deployment.wait_ready(TIMEOUT_S)
    second = pid_of(deployment, 1)
    deployment.scale(1)
    assert [endpoint.replica for endpoint in deployment.endpoints] == [0]
    assert runs(first) and not runs(second)
    assert names(events, 1) == ["spawned", "port_bound", "ready", "stopped"]


def test_use_counts_children_that_have_already_ended(begin):
    deployment, _ = begin("busy")
    deployment.wait_ready(TIMEOUT_S)
    use = deployment.use()
    child = sum(psutil.Process(pid_of(deployment)).cpu_times()[2:4])
    assert child > 0.1
    assert use.cpu_s >= child
    assert use.rss_bytes > 1_000_000
    assert use.rss_peak_bytes >= use.rss_bytes
    assert use.disk_bytes >= len(b"archive")


def test_use_after_stopping_keeps_what_was_spent(begin):
    deployment, _ = begin("busy")
    deployment.wait_ready(TIMEOUT_S)
    before = deployment.use()
    deployment.stop()
    after = deployment.use()
    assert after.cpu_s >= before.cpu_s > 0
    assert after.rss_peak_bytes >= before.rss_peak_bytes
    assert after.rss_bytes is None


def test_a_taken_port_is_named_with_its_holder_before_anything_starts(begin):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        holder = psutil.Process().name()
        with pytest.raises(DeploymentError, match=rf"port {port} .* {holder} \(pid {os.getpid()}\)"):
            begin("well", ports=[port])


def test_too_few_ports_for_the_replicas_are_a_usage_error_and_leave_nothing(begin):
    before = _mine()
    with pytest.raises(ServingError, match="1 ports were given for 2 replicas"):
        begin("well", replicas=2, ports=free_ports(1))
    assert _mine() <= before


def _mine() -> set[psutil.Process]:
    """This test run's processes; other suites' servers, kept for the whole run, may be among them."""
    return {child for child in psutil.Process().children(recursive=True) if child.status() != "zombie"}


def test_a_corrupt_artifact_is_refused_before_anything_starts(begin, toy_model):
    toy_model.mar_path.write_bytes(b"other")
    before = _mine()
    with pytest.raises(ModelError, match="corrupt"):
        begin("well")
    assert _mine() <= before


def test_a_workdir_that_cannot_be_written_is_named(begin, tmp_path):
    (tmp_path / "work").write_text("a file")
    with pytest.raises(DeploymentError, match="replica-0 cannot be written"):
        begin("well")


def test_a_program_that_is_missing_is_named(begin, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DeploymentError, match="/nowhere/python cannot be started"):
        begin("well")


def test_zero_replicas_are_refused(begin):
    with pytest.raises(ServingError, match="at least 1"):
        begin("well", replicas=0)


def test_events_of_several_threads_reach_the_listener_one_at_a_time():
    second_inside, overlapped = threading.Event(), []

    def listen(event: Event) -> None:
        if event.name == "second":
            second_inside.set()
            return
        other.start()
        overlapped.append(second_inside.wait(0.2))  # the other thread has all the time to come in

    events = EventLog(listen)
    other = threading.Thread(target=events.add, args=("second",))
    events.add("first")
    other.join(TIMEOUT_S)
    assert second_inside.is_set()
    assert overlapped == [False]


def test_the_first_right_answer_comes_after_refusals_and_wrong_ones(begin, toy_model):
    deployment, events = begin("late")
    deployment.wait_ready(TIMEOUT_S)
    time_ns = first_answer(
        deployment.endpoints[0], WIRES["torchserve"], toy_model, timeout_s=TIMEOUT_S, alive=deployment.alive
    )
    assert time_ns > events.events[-1].t_ns


def test_a_server_that_answers_wrongly_has_no_first_answer(begin, toy_model):
    deployment, _ = begin("wrong")
    deployment.wait_ready(TIMEOUT_S)
    with pytest.raises(DeploymentError, match="last: a wrong answer"):
        first_answer(deployment.endpoints[0], WIRES["torchserve"], toy_model, timeout_s=0.2)


def test_a_dead_server_ends_the_wait_for_its_first_answer(begin, toy_model):
    deployment, _ = begin("well")
    endpoint = deployment.endpoints[0]
    deployment.stop()
    with pytest.raises(DeploymentError, match="ended before its first right answer"):
        first_answer(endpoint, WIRES["torchserve"], toy_model, timeout_s=TIMEOUT_S, alive=deployment.alive)


def test_logs_tell_the_replica(begin, tmp_path):
    deployment, _ = begin("well", replicas=2)
    deployment.wait_ready(TIMEOUT_S)
    assert "[replica 0] cpus" in deployment.logs()
    assert "[replica 1] cpus" in deployment.logs()
    assert Path(tmp_path / "work" / "replica-1" / "server.log").is_file()


def test_use_counts_disk_threads_and_swap_of_children_too(begin):
    deployment, _ = begin("family")
    deployment.wait_ready(20)
    use = deployment.use()
    assert use.threads >= 3  # the server, its child and its daemon
    assert use.swap_bytes == 0 and use.disk_read_bytes >= 0 and use.disk_written_bytes >= 0
    deployment.stop()
    after = deployment.use()
    assert after.threads is None and after.swap_bytes is None and after.throttled_s is None
    assert after.disk_written_bytes >= use.disk_written_bytes


def test_disk_threads_and_swap_are_read_as_the_kernel_writes_them(tmp_path, monkeypatch):
    me = psutil.Process()
    folder = tmp_path / str(me.pid)
    folder.mkdir()
    (folder / "io").write_text("rchar: 9\nwchar: 9\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n")
    (folder / "status").write_text("Name:\tx\nVmHWM:\t99999999 kB\nVmSwap:\t 12 kB\nThreads:\t7\n")
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    found = processes.usage([me, me])
    assert (found.disk_read_bytes, found.disk_written_bytes) == (8192, 16384)
    assert (found.threads, found.swap_bytes) == (14, 24 * 1024)
    assert found.rss_peak_bytes == 2 * 99999999 * 1024


@pytest.mark.parametrize(
    ("cgroup", "stat", "seconds"),
    [
        ("0::/box/inner\n", {"box/cpu.stat": "usage_usec 9\nthrottled_usec 2500000\n"}, 2.5),
        (
            "4:cpu,cpuacct:/box\n0::/\n",
            {"cpu,cpuacct/box/cpu.stat": "nr_throttled 1\nthrottled_time 1500000000\n"},
            1.5,
        ),
        ("2:cpu:/box\n3:memory:/box\n", {"cpu/cpu.stat": "throttled_time 0\n"}, 0.0),
        ("0::/box\n", {"box/cpu.stat": "usage_usec 9\n"}, None),
        ("3:memory:/box\n", {"memory/box/cpu.stat": "throttled_time 7\n"}, None),
    ],
)
def test_throttling_is_read_from_the_cgroup_or_those_above_it(tmp_path, cgroup, stat, seconds):
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "cgroup").write_text(cgroup)
    for path, text in stat.items():
        (tmp_path / "sys" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / path).write_text(text)
    assert processes.throttled_s(7, tmp_path / "sys", tmp_path / "proc") == seconds
    assert processes.throttled_s(8, tmp_path / "sys", tmp_path / "proc") is None
