"""Locust's statistics get what Locust's own `log` would have made of the same requests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.generator.jobs import DROPPED, HTTP_ERROR, OK, TIMEOUT
from tests.source_tree import ROOT

BOTH = Path(__file__).with_name("both_statistics.py")
SHIFT_NS = 1_700_000_000_123_456_789


@pytest.fixture(scope="module")
def both():
    """A function that gives (ours, Locust's) of rows."""
    process = subprocess.Popen([sys.executable, BOTH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(rows, **more):
        process.stdin.write(json.dumps({"rows": rows, "shift_ns": SHIFT_NS, **more}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        return answer["ours"], answer["locusts"]

    yield ask
    process.communicate()


def rows_of(latencies_ns, start_ns=10**12, gap_ns=400_000_000):
    """A row for each latency, in the order in which they end."""
    rows = [[start_ns + at * gap_ns, start_ns + at * gap_ns + t, OK, 100] for at, t in enumerate(latencies_ns)]
    return sorted(rows, key=lambda row: row[1])


# Whole and half steps of each of Locust's roundings, and their neighbours.
EDGES_NS = st.builds(
    lambda step, count, off: max(0, (count * step) // 2 + off),
    st.sampled_from([10**6, 10**7, 10**8, 10**9]),
    st.integers(0, 220),
    st.integers(-1, 1),
)
LATENCIES_NS = st.one_of(EDGES_NS, st.integers(0, 200_000_000_000), st.integers(0, 12_000_000_000))


@settings(max_examples=200, deadline=None)
@given(latencies_ns=st.lists(LATENCIES_NS, min_size=1, max_size=40))
def test_any_latencies_give_locusts_own_histogram(both, latencies_ns):
    ours, locusts = both(rows_of(latencies_ns))
    assert ours.pop("total_response_time") == pytest.approx(locusts.pop("total_response_time"), rel=1e-12)
    assert ours == locusts


def test_a_latency_is_rounded_once(both):
    ours, _ = both(rows_of([105_400_000, 104_600_000, 1_049_000_000, 105_000_000, 115_000_000]))
    assert ours["response_times"] == [[100, 2], [110, 1], [120, 1], [1000, 1]]


def test_failures_and_dropped_requests_are_counted_as_locust_counts_them(both):
    second = 1_000_000_000
    rows = [
        [5 * second, 5 * second + 3_000_000, OK, 250],
        [5 * second, 6 * second, HTTP_ERROR, 90],
        [7 * second, -1, DROPPED, 0],
        [5 * second, 15 * second, TIMEOUT, 0],
    ]
    ours, locusts = both(rows)
    assert ours == locusts
    assert (ours["num_requests"], ours["num_failures"], ours["num_none_requests"]) == (4, 3, 1)
    assert [count for _, count in ours["num_fail_per_sec"]] == [1, 1, 1]


def test_requests_count_in_the_second_in_which_they_ended(both):
    ours, _ = both(rows_of([1_000_000] * 10, gap_ns=500_000_000))
    assert [count for _, count in ours["num_reqs_per_sec"]] == [2, 2, 2, 2, 2]


def test_a_rounding_of_a_person_s_own_is_used(both):
    rows = rows_of([1_999_400_000, 999_600_000, 3_000_000])
    ours, locusts = both(rows, rounding="whole seconds")
    assert ours["response_times"] == locusts["response_times"] == [[0, 2], [1000, 1]]


TICKS = """
import json, time
from types import SimpleNamespace
from locust.stats import RequestStats
from loadtests.locust_side.locust_stats import LocustStatistics

stats, now_ns, seen = RequestStats(), time.monotonic_ns(), {}
stats.history.append("a second of the warm-up")
stats.log_request("GET", "a person's own request in the warm-up", 5, 0)
begin = {"ns": now_ns + 3600 * 10**9}
fed = LocustStatistics(SimpleNamespace(stats=stats), "m", "n", lambda: begin["ns"])
fed.tick()
seen["in the warm-up"] = [len(stats.history), stats.num_requests]
begin["ns"] = now_ns - 10**9
expected_s = time.time() - (time.monotonic_ns() - begin["ns"]) / 1e9
fed.tick()
seen["after it"] = [len(stats.history), stats.num_requests, abs(stats.start_time - expected_s) < 0.5]
stats.total.start_time -= 100
fed.tick()
seen["a report of a worker that began before"] = abs(stats.start_time - expected_s) < 0.5
stats.reset_all()
later_s = stats.start_time
fed.tick()
seen["Reset Stats"] = stats.start_time == later_s
print(json.dumps(seen))
"""


def test_locusts_statistics_begin_anew_once_when_the_warm_up_ends():
    done = subprocess.run([sys.executable, "-c", TICKS], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == {
        "in the warm-up": [1, 1],
        "after it": [0, 0, True],
        "a report of a worker that began before": True,
        "Reset Stats": True,
    }
