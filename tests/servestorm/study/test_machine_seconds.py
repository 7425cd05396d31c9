"""Steal and other load second by second, on the samples' clock, from readings that cost next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from servestorm.study import machine_counters
from servestorm.study.cores import Cores
from servestorm.study.machine_counters import KERNEL, Counters, MachineWatch, Memory, difference, memory
from servestorm.study.machine_seconds import CpuTimes, by_second
from servestorm.study.own_processes import OwnProcesses
from tests.stand_ins.made_up_machine import MadeUpMachine

S = 10**9
CORES = Cores((0,), (1,), ())
TICKS = os.sysconf("SC_CLK_TCK")


def times(at_s, busy, steal, ours):
    return CpuTimes(round(at_s * S), dict(enumerate(busy)), dict(enumerate(steal)), ours)


def test_every_second_has_its_own_shares_of_the_engines_and_of_the_generators_cores():
    readings = [
        times(10.0, (5.0, 1.0, 0.0), (0.0, 0.0, 0.0), 3.0),
        times(11.0, (5.8, 1.2, 1.0), (0.1, 0.0, 1.0), 3.4),  # core 2 is nobody's
        times(12.0, (5.8, 1.2, 2.0), (0.1, 0.0, 2.0), 3.4),
    ]
    busy, idle = by_second(readings, CORES)
    assert (busy.begin_ns, busy.end_ns, idle.end_ns) == (10 * S, 11 * S, 12 * S)
    assert busy.steal_share == pytest.approx(0.05)
    assert busy.other_share == pytest.approx(0.3)  # 1.0 s of busy cores, of which 0.4 s are ours
    assert busy.ours_s == pytest.approx(0.4)
    assert (busy.engine_busy_share, busy.generator_busy_share) == (pytest.approx(0.8), pytest.approx(0.2))
    assert (busy.engine_steal_share, busy.generator_steal_share) == (pytest.approx(0.1), 0.0)
    assert (idle.steal_share, idle.other_share) == (0.0, 0.0)


def test_a_core_that_serves_interrupts_is_busy_with_no_other_program():
    begin = CpuTimes(0, {0: 1.0, 1: 1.0}, {0: 0.0, 1: 0.0}, 1.0, {0: 0.1, 1: 0.0})
    end = CpuTimes(S, {0: 1.9, 1: 1.5}, {0: 0.0, 1: 0.0}, 1.8, {0: 0.5, 1: 0.1})
    (second,) = by_second([begin, end], CORES)
    assert (second.engine_busy_share, second.other_share) == (pytest.approx(0.9), pytest.approx(0.05))
    whole = [
        Counters(at.monotonic_ns, 0, at.busy_s, at.steal_s, at.ours_s, 0, 0.0, None, at.interrupts_s)
        for at in (begin, end)
    ]
    assert difference(*whole, [0, 1], None).other_s == pytest.approx(0.1)


def test_the_kernel_s_interrupt_times_are_read(tmp_path):
    (tmp_path / "stat").write_text("cpu  30 2 6 900 5 10 20 40 9 0\ncpu0 10 1 3 400 2 10 20 30 9 0\nintr 5 4\n")
    assert Counters.now(tmp_path).interrupts_s == pytest.approx({0: 0.30})


def test_what_is_unknown_is_none_and_other_load_never_negative():
    known, blind = times(0, (1.0, 1.0), (0.0, 0.0), 1.0), CpuTimes(S, None, None, None)
    (second,) = by_second([known, blind], CORES)
    assert (second.steal_share, second.other_share, second.ours_s, second.engine_busy_share) == (None,) * 4
    (second,) = by_second([known, times(1, (1.1, 1.0), (0.0, 0.0), 9.0)], CORES)
    assert second.other_share == 0.0
    (second,) = by_second([known, times(1, (1.1, 1.0), (0.0, 0.0), 1.0)], Cores((), (0, 1), ()))
    assert second.engine_busy_share is None and second.generator_busy_share == pytest.approx(0.05)


def test_a_watch_reads_on_until_it_is_stopped(monkeypatch):
    monkeypatch.setattr(machine_counters, "EVERY_S", 0.001)
    machine = MadeUpMachine((0.5, 0.25))
    watch = MachineWatch([0, 1], machine=machine, elsewhere_each_s=True)
    for _ in range(5):
        assert machine.metered.acquire(timeout=60)
    change = watch.stop()
    assert (change.other_s, change.steal_s) == (1.0, 0.5)  # in the second between its two whole readings
    seconds = watch.by_second(CORES)
    assert len(seconds) >= 4
    assert {second.other_share for second in seconds} == {0.5}
    assert {second.steal_share for second in seconds} == {0.25}
    read = len(seconds)
    watch.close()
    assert len(watch.by_second(CORES)) == read


def test_servers_whose_reading_costs_time_are_read_before_and_after_only(monkeypatch):
    monkeypatch.setattr(machine_counters, "EVERY_S", 0.001)
    machine, asked = MadeUpMachine((0.5, 0.25)), []
    watch = MachineWatch([0, 1], lambda: asked.append(1) or 0.0, machine)
    for _ in range(5):
        assert machine.metered.acquire(timeout=60)
    watch.stop()
    assert len(asked) == 2
    assert {(s.other_share, s.steal_share) for s in watch.by_second(CORES)} == {(None, 0.25)}


def test_the_kernel_is_read_on_the_monotonic_clock():
    begin_ns, meter = time.monotonic_ns(), KERNEL.cpu_meter()
    seen = meter(0.0)
    assert begin_ns <= seen.monotonic_ns <= time.monotonic_ns()
    assert seen.busy_s.keys() == seen.steal_s.keys() and seen.busy_s.keys() >= os.sched_getaffinity(0)
    assert meter(None).ours_s is None


def test_memory_is_read_as_the_kernel_writes_it(tmp_path):
    lines = [
        "MemTotal:        8000 kB",
        "MemAvailable:  6000 kB",
        "SwapTotal: 100 kB",
        "SwapFree: 40 kB",
        "HugePages_Total: 0",
    ]
    (tmp_path / "meminfo").write_text("\n".join(lines) + "\n")
    assert memory(tmp_path) == Memory(8000 * 1024, 6000 * 1024, 60 * 1024)
    assert memory(tmp_path / "nothing") == Memory(None, None, None)
    assert KERNEL.memory().total_bytes > KERNEL.memory().available_bytes > 0


# processes ----------------------------------------------------------------------------------------------------------


def put(proc, pid, parent, cpu_s, waited_s=0.0, name="python"):
    """/proc/PID/stat of a process."""
    (proc / str(pid)).mkdir(exist_ok=True)
    used, waited = round(cpu_s * TICKS), round(waited_s * TICKS)
    fields = ["S", parent, *[0] * 9, used, 0, waited, 0, *[0] * 20]
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(map(str, fields))}\n")


def end(proc, pid):
    (proc / str(pid) / "stat").unlink()
    (proc / str(pid)).rmdir()


@pytest.fixture
def proc(tmp_path):
    put(tmp_path, 1, 0, 500.0)
    put(tmp_path, 10, 1, 2.0)
    put(tmp_path, 12, 10, 3.0, name="a) S 1 (b")
    put(tmp_path, 11, 12, 0.5)  # a child with a smaller number: pids are used again
    put(tmp_path, 20, 1, 90.0)
    (tmp_path / "self").mkdir()
    return tmp_path


def test_descendants_count_whatever_they_are_called_and_others_do_not(proc):
    assert OwnProcesses(proc, root=10).cpu_s() == pytest.approx(5.5)


def test_a_process_that_starts_later_counts_and_one_that_ends_stays_counted_by_its_parent(proc):
    own = OwnProcesses(proc, root=10)
    own.cpu_s()
    put(proc, 30, 11, 7.0)
    put(proc, 31, 20, 7.0)
    assert own.cpu_s() == pytest.approx(12.5)
    end(proc, 30)
    put(proc, 11, 12, 0.5, waited_s=7.0)
    assert own.cpu_s() == pytest.approx(12.5)


def test_a_process_that_loses_its_parent_stays_ours(proc):
    own = OwnProcesses(proc, root=10)
    own.cpu_s()
    end(proc, 12)
    put(proc, 11, 1, 0.5)
    put(proc, 10, 1, 2.0, waited_s=3.0)
    assert own.cpu_s() == pytest.approx(5.5)


def test_a_number_that_is_used_again_by_one_of_ours_counts(proc):
    own = OwnProcesses(proc, root=10)
    own.cpu_s()
    end(proc, 20)
    own.cpu_s()
    put(proc, 20, 10, 4.0)
    assert own.cpu_s() == pytest.approx(9.5)


def test_known_processes_are_not_asked_for_their_parents_again(proc, monkeypatch):
    own = OwnProcesses(proc, root=10)
    own.cpu_s()
    asked = []
    monkeypatch.setattr(own, "_parent", asked.append)
    own.cpu_s()
    assert asked == []


def test_where_nothing_can_be_read_it_is_unknown(tmp_path):
    assert OwnProcesses(tmp_path / "nothing").cpu_s() is None
    assert OwnProcesses(tmp_path, root=10).cpu_s() is None


def test_the_work_of_a_child_of_this_process_is_ours():
    own = OwnProcesses()
    before_s = own.cpu_s()
    code = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert own.cpu_s() - before_s >= 0.29
