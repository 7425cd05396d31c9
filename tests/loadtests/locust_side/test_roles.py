"""What a headless load prints and ends with, and what its metrics call offered."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.loadtests.samples.test_summary import rows, summary_of
from tests.source_tree import ROOT

# Importing Locust patches the process.
PROGRAM = """
import sys
from types import SimpleNamespace
from loadtests.locust_side.roles import Role, summary_lines
from loadtests.samples.summary import Summary
summary = Summary.model_validate_json(sys.stdin.read())
environment = SimpleNamespace()
Role(environment)._tell(summary)
print(environment.process_exit_code, *summary_lines(summary), sep="\\n")
"""


def told(summary):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=summary.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    code, *lines = done.stdout.splitlines()
    return int(code), lines


def late_in(part, lag_ms):
    table = rows()
    table[part, 1:4] += int(lag_ms * 1e6)
    return table


@pytest.mark.parametrize(
    ("table", "code", "figures", "last"),
    [
        (rows(), 0, "p50 10.00 ms, p95 10.00 ms, p99 10.00 ms", "VALID"),
        (
            late_in(np.arange(0, 1000, 20), 30),
            0,
            "p50 10.00 ms, p95 10.00 ms, p99 INVALID",
            "the generator sent late, so some figures are INVALID: p99 (moved by 302.0%, over 3%), "
            "mean (moved by 15.6%, over 1.5%)",
        ),
        (
            rows(lag_ms=5),
            4,
            "p50 INVALID, p95 INVALID, p99 INVALID",
            "the generator sent late, so no percentile counts, and these are INVALID: "
            "p50 (moved by 100.0%, over 1.5%), p90 (moved by 100.0%, over 1%), p95 (moved by 100.0%, over 1%), "
            "p99 (moved by 100.0%, over 3%), mean (moved by 100.0%, over 1.5%)",
        ),
    ],
)
def test_invalid_figures_are_named_and_a_load_without_a_percentile_ends_with_4(table, code, figures, last, tmp_path):
    found, lines = told(summary_of(tmp_path, table))
    assert found == code
    assert lines[0].endswith(figures)
    assert lines[-1] == last
    assert "VALID" in lines


OFFERED = """
import json, sys, time
from types import SimpleNamespace
import numpy as np
from loadtests.arrivals.blocks import RecordedSchedule
from loadtests.arrivals.turns import Turn, Turns
from loadtests.locust_side.alone import Offered
turns = Turns([Turn(0.0, 1.0, 0.0), Turn(2.0, 0.5, 1.0), Turn(5.0, 0.5, 1.0)])
in_blocks = turns.place(RecordedSchedule(np.arange(0, 2_000_000_000, 100_000_000)), 10.0)
schedule = in_blocks.whole()
load = SimpleNamespace(schedule=in_blocks, measured=turns.measured, closed_loop=0)
session = SimpleNamespace(measured_from_ns=1, generator=SimpleNamespace(fired=0))
offered = Offered(SimpleNamespace(load=load), session)
counts = []
for session.generator.fired in range(len(schedule) + 1):
    counts.append(offered())
print(json.dumps([counts, turns.measured.contains(schedule).tolist()]))
"""


def test_the_metrics_offered_are_the_measured_arrivals_that_were_due():
    done = subprocess.run([sys.executable, "-c", OFFERED], capture_output=True, text=True, check=True, cwd=ROOT)
    counts, measured = json.loads(done.stdout)
    assert counts == [0, *np.cumsum(measured).tolist()]
    assert counts[-1] == 20


RETURNED = """
import json
from types import SimpleNamespace
from loadtests.locust_side.master import MasterRole

clients = {name: SimpleNamespace(state="running") for name in ("first", "second")}
role = MasterRole(SimpleNamespace(runner=SimpleNamespace(clients=clients)), None)
role._prepared = SimpleNamespace(load=SimpleNamespace(duration_ns=0, timeout_ns=0))
role._start_ns = 2**62
role._workers = list(clients)
ticks = []

def end(worker):
    keys = ("cpu_share", "stopped_after_ns", "gave_up_after_ns", "kept_awake")
    role.take_ending({"worker": worker, "error_details": {}, **dict.fromkeys(keys)})

def tick():
    ticks.append(True)
    if len(ticks) == 3:
        end(1)

role._statistics = SimpleNamespace(tick=tick)
role._lost.add(0)
end(0)
role._carry_out()
print(json.dumps(sorted(role._endings)))
"""


def test_a_lost_worker_that_comes_back_and_ends_does_not_stand_for_another_one():
    done = subprocess.run([sys.executable, "-c", RETURNED], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == [0, 1]


SILENT = """
import json, time
from types import SimpleNamespace
from loadtests.locust_side.silent_master import MasterSilence

now = [1000.0]
time.monotonic = lambda: now[0]
runner = SimpleNamespace(last_heartbeat_timestamp=None)
silence = MasterSilence(runner)
found = []
for passed in (500, 0, 59, 2):
    if passed == 0:
        runner.last_heartbeat_timestamp = 5.0
        silence.heard(client_id="master", timestamp=5.0)
    now[0] += passed
    found.append(silence.is_too_long())
print(json.dumps([found, runner.last_heartbeat_timestamp]))
"""


def test_a_worker_gives_its_master_up_a_minute_after_the_last_heartbeat_and_never_before_the_first():
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == [[False, False, False, True], None]
