"""Idle generators are found, waited for and told apart from what they were; what runs in them survives its stream."""

from __future__ import annotations

import os
import signal
import time

import pytest

from serving.backends.kubernetes import agents as module
from serving.backends.kubernetes.agents import AgentLost, Detached
from serving.backends.kubernetes.execute import Executed, NotExecuted
from serving.errors import DeploymentError
from tests.stand_ins.agents_here import AgentsHere, pod


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two agents of this machine; nothing that ran in them is left."""
    monkeypatch.setattr(module, "_POLL_S", 0.01)
    made = AgentsHere(tmp_path, 2, monkeypatch)
    yield made
    assert made.pids() == []


@pytest.fixture
def process(here):
    """A function that begins a shell command in the first agent."""
    agents = here.agents()
    found = agents.wait(1)
    begun = []

    def begin(script, name="a"):
        detached = Detached(agents, found[0], f"/results/x/{name}")
        detached.begin(["sh", "-c", script])
        begun.append(detached)
        return detached

    yield begin
    here.breaks = lambda count: False
    for each in begun:
        each.end()


def until(look, what=lambda seen: seen is not None):
    end = time.monotonic() + 20
    while not what(seen := look()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return seen


def test_agents_are_told_with_where_they_are(here):
    first, second = here.agents().wait(1)
    assert (first.pod, first.node, first.address, first.restarts) == ("agent-0", "node1", "127.0.0.1", 0)
    assert second.pod == "agent-1"


def test_an_agent_that_is_not_ready_is_waited_for(here):
    here.pods[1]["status"]["conditions"][0]["status"] = "False"
    looks = []

    def alive():
        looks.append(1)
        if len(looks) == 3:
            here.pods[1]["status"]["conditions"][0]["status"] = "True"
        return True

    assert len(here.agents().wait(20, alive)) == 2
    assert len(looks) == 3


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (
            {"containerStatuses": [{"name": "agent", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
            r"the image servestorm/generator:0\.1\.0 of load agent late is not on node node1",
        ),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: Insufficient cpu."}
                ]
            },
            r"load agent late stays Pending \(0/1 nodes are available: Insufficient cpu",
        ),
        ({}, r"1 of 2 load agents of release r became ready within 0 s"),
    ],
)
def test_why_an_agent_does_not_become_ready_is_said(status, sentence, here):
    here.pods[1] = pod("late", ready=False, **status)
    with pytest.raises(DeploymentError, match=sentence):
        here.agents().wait(0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda pods: pods.pop(), "load agent agent-1 on node node1 was deleted under load"),
        (lambda pods: pods[1]["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"), "was deleted under load"),
        (lambda pods: pods[1]["metadata"].update(uid="another"), "was deleted under load"),
        (
            lambda pods: pods[1]["status"]["containerStatuses"][0].update(
                restartCount=1, lastState={"terminated": {"reason": "OOMKilled", "exitCode": 137}}
            ),
            r"killed for want of memory under load: raise load\.resources\.limits\.memory",
        ),
        (
            lambda pods: pods[1]["status"]["containerStatuses"][0].update(
                restartCount=1, lastState={"terminated": {"reason": "Error", "exitCode": 137}}
            ),
            r"ended with code 137 under load \(Error\)",
        ),
        (lambda pods: pods[1]["status"].update(phase="Failed", reason="Evicted"), r"off its node under load \(Evicted"),
        (lambda pods: pods[1]["status"]["conditions"][0].update(status="False"), "its node does not answer any more"),
    ],
)
def test_an_agent_that_is_not_what_it_was_is_named_with_the_reason(change, sentence, here):
    agents = here.agents()
    found = agents.wait(1)
    agents.require(found)
    change(here.pods)
    with pytest.raises(AgentLost, match=sentence):
        agents.require(found)
    agents.require(found[:1])


def test_a_command_runs_on_without_its_stream_and_tells_its_exit_code(here, process):
    running = process("echo said; echo so >&2; exit 4")
    assert until(running.code) == 4
    assert running.code() == 4
    assert (here.results("agent-0") / "x" / "a" / "output.log").read_text() == "said\nso\n"


def test_a_stream_that_breaks_after_the_beginning_begins_nothing_twice(here, process, tmp_path):
    here.breaks = lambda count: count == 1
    counted = tmp_path / "count"
    running = process(f"echo once >>{counted}")
    assert until(running.code) == 0
    assert counted.read_text() == "once\n"


def test_nobody_can_tell_is_another_thing_than_gone(here, process):
    running = process("sleep 60")
    assert running.code() is None
    here.breaks = lambda count: True
    with pytest.raises(NotExecuted):
        running.code()
    here.breaks = lambda count: False
    assert running.code() is None


def test_a_command_that_is_gone_without_a_word_is_a_lost_agent(here, process, tmp_path):
    running = process("sleep 60")
    told = here.results("agent-0") / "x" / "a" / "pid"
    until(lambda: told.exists() and told.read_text().strip(), bool)
    os.killpg(int(told.read_text()), signal.SIGKILL)
    until(here.pids, lambda left: not left)
    with pytest.raises(AgentLost, match="what ran in load agent agent-0 on node node1 is gone without a word"):
        running.code()


def test_what_is_ended_is_gone_with_all_that_it_started(here, process):
    running = process("sleep 60 & sleep 60 & wait")
    until(here.pids, lambda living: len(living) >= 4)
    running.end()
    assert here.pids() == []
    running.end()


def test_what_does_not_listen_is_killed(here, process, monkeypatch):
    monkeypatch.setattr(module, "_END", module._END.replace("left=50", "left=3"))
    running = process("trap '' TERM; echo deaf; while :; do sleep 60; done")
    log = here.results("agent-0") / "x" / "a" / "output.log"
    until(lambda: log.exists() and log.read_text(), bool)
    running.end()
    assert here.pids() == []


def test_a_file_arrives_whole_in_parts_through_broken_streams(here, process, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1000)
    running = process("true")
    data = bytes(range(256)) * 20
    (here.results("agent-0") / "x" / "a" / "data").write_bytes(data)
    here.breaks = lambda count: count % 3 == 0
    assert running.fetch("data", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    assert not running.fetch("absent", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_file_that_arrives_damaged_is_not_kept(here, process, tmp_path, monkeypatch):
    running = process("true")
    (here.results("agent-0") / "x" / "a" / "data").write_bytes(b"0123456789")
    whole = module.execute

    def damaged(*arguments):
        done = whole(*arguments)
        return Executed(0, b"x" * len(done.out), "") if "tail" in arguments[4][2] else done

    monkeypatch.setattr(module, "execute", damaged)
    with pytest.raises(NotExecuted, match="arrived damaged"):
        running.fetch("data", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_file_is_put_into_an_agent_whole_whatever_is_in_it(here):
    agents = here.agents()
    (first, _) = agents.wait(1)
    text = '[{"rest": "http://a:1", "grpc": "$HOME `x` \\"y\\""}]\n'
    agents.write(first, "/results/new/endpoints.json", text)
    assert (here.results("agent-0") / "new" / "endpoints.json").read_text() == text
    agents.remove(first, "/results/new")
    assert not (here.results("agent-0") / "new").exists()


def test_an_agent_on_this_machine_has_its_clock(here):
    agents = here.agents()
    assert agents.clock_shift_ns(agents.wait(1)[0]) == 0


@pytest.mark.parametrize(("wall_off_s", "told_s"), [(0.0, 1000.0), (60.0, 1000.0)])
def test_another_machine_s_clock_is_told_by_both_wall_clocks_within_what_a_question_takes(
    wall_off_s, told_s, here, monkeypatch
):
    def elsewhere(*_):
        time.sleep(0.002)
        monotonic_ns, wall_ns = time.monotonic_ns() - int(told_s * 1e9), time.time_ns() + int(wall_off_s * 1e9)
        return Executed(0, f"another-boot {monotonic_ns} {wall_ns}\n".encode(), "")

    monkeypatch.setattr(module, "execute", elsewhere)
    agents = here.agents()
    shift_ns = agents.clock_shift_ns(agents.wait(1)[0])
    assert abs(shift_ns - told_s * 1e9) < 50e6
