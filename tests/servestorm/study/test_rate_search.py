"""Capacity searches step by step: deployments that stand together take turns, and doomed probes are given up."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from servestorm.methods.capacity_search import LoadOutcome
from servestorm.plan.scenarios import Capacity
from servestorm.rundir.shapes.search import CapacityFile
from servestorm.study.rate_search import interleaved_searches, search
from servestorm.study.scenarios.table import SCENARIO_CELLS


class MadeUpLoad:
    """A deployment that takes up to `most` requests/s; every load is noted in `log`."""

    def __init__(self, name, most, log, seed=1, slow_ms=0.0, gives_up=False, **capacity):
        asked = {"p99_ms": 50, "start_rate_per_s": 100, "tolerance_percent": 10, **capacity}
        self.plan = SimpleNamespace(capacity=Capacity(**{k: v for k, v in asked.items() if v is not None}))
        self.variant = SimpleNamespace(images_per_request=1)
        self.cell = SimpleNamespace(seed=seed)
        self.name, self.most, self.log, self.slow_ms, self.gives_up = name, most, log, slow_ms, gives_up
        self.commands, self.drained = [], 0

    def offer(self, command, folder):
        folder.mkdir()
        self.log.append(self.name)
        self.commands.append(command)
        if "--closed-loop" in command.options:
            return SimpleNamespace(ok=600)
        rate = float(command.options[command.options.index("--rate") + 1])
        fails = rate > self.most
        p99_ms = 90.0 if fails else 20.0
        self._write(folder / "samples.parquet", p99_ms)
        outcome = LoadOutcome(
            valid=True,
            reasons=[],
            scheduled=2000,
            ok=2000,
            dropped=0,
            wrong_answers=0,
            lost=0,
            p99_ms=p99_ms,
            service_p99_ms=p99_ms,
            lag_p99_ms=0.1,
            given_up=fails and self.gives_up,
        )
        return SimpleNamespace(ok=2000, outcome=outcome)

    def _write(self, path, p99_ms):
        """2,000 answers of which 19 here and there took `slow_ms`, where that is asked."""
        scheduled = 10**12 + np.arange(2000, dtype=np.int64) * 10**7
        latency_ms = np.full(2000, p99_ms)
        if self.slow_ms:
            latency_ms[50::105] = self.slow_ms
        columns = {
            "scheduled_ns": scheduled,
            "sent_ns": scheduled,
            "done_ns": scheduled + (latency_ms * 1e6).astype(np.int64),
            "sent_bytes": np.full(2000, 700, np.int32),
            "received_bytes": np.full(2000, 250, np.int32),
            "endpoint": np.zeros(2000, np.int16),
            "outcome": pa.array(["ok"] * 2000).dictionary_encode(),
            "images": np.ones(2000, np.int16),
            "warmup": np.zeros(2000, bool),
        }
        pq.write_table(pa.table(columns), path)

    def disturbance(self, folder):
        return None

    def wait_drained(self):
        self.drained += 1


def folders_for(tmp_path, loads):
    folders = [tmp_path / load.name for load in loads]
    for folder in folders:
        folder.mkdir(parents=True)
    return folders


def found(folder):
    return CapacityFile.model_validate(json.loads((folder / "capacity.json").read_text()))


def test_probes_of_a_round_alternate_in_seeded_order_until_every_search_is_finished(tmp_path):
    logs = []
    for attempt in ("one", "two"):
        log = []
        loads = [MadeUpLoad("a", 300, log), MadeUpLoad("b", 120, log, seed=2), MadeUpLoad("c", 0, log, seed=3)]
        folders = folders_for(tmp_path / attempt, loads)
        SCENARIO_CELLS["capacity"].measure_round(loads, folders, lambda: None)
        logs.append(log)
    assert logs[0] == logs[1]
    counts = {name: log.count(name) for name in "abc"}
    for turn in range(min(counts.values())):
        assert sorted(log[3 * turn : 3 * turn + 3]) == ["a", "b", "c"]
    assert len({tuple(log[3 * turn : 3 * turn + 3]) for turn in range(min(counts.values()))}) > 1
    assert [load.drained for load in loads] == [counts[name] for name in "abc"]
    assert [found(folder).rate_per_s is not None for folder in folders] == [True, True, False]
    assert len(set(counts.values())) > 1  # the others went on when one was finished


def test_a_search_that_takes_turns_finds_what_it_finds_alone(tmp_path):
    alone, together = MadeUpLoad("alone", 300, []), [MadeUpLoad("a", 300, []), MadeUpLoad("b", 77, [])]
    (own,) = folders_for(tmp_path, [alone])
    folders = folders_for(tmp_path, together)
    search(alone, own)
    interleaved_searches(together, folders)
    assert found(folders[0]) == found(own)


def test_the_first_guess_of_the_rate_takes_a_turn_too(tmp_path):
    log = []
    loads = [MadeUpLoad(name, 300, log, start_rate_per_s=None) for name in "ab"]
    interleaved_searches(loads, folders_for(tmp_path, loads))
    assert sorted(log[:2]) == ["a", "b"]
    assert all("--closed-loop" in load.commands[0].options for load in loads)
    assert float(loads[0].commands[1].options[1]) == 100  # half of 600 answers in 3 s


def test_every_probe_says_when_it_is_to_be_given_up_and_one_that_was_leaves_no_p99(tmp_path):
    load = MadeUpLoad("a", 230, [], gives_up=True)
    (folder,) = folders_for(tmp_path, [load])
    search(load, folder)
    assert all("--give-up-in-flight" in command.options for command in load.commands)
    given_up = [probe for probe in found(folder).probes if probe.given_up]
    assert given_up
    for probe in found(folder).probes:
        assert probe.given_up == (probe.rate_per_s > 230)
        assert (probe.verdict, probe.p99_ms) == (("fail", None) if probe.given_up else ("pass", 20.0))
    assert "so many requests were in flight" in given_up[0].reason


@pytest.mark.parametrize(("promise", "passes"), [(False, True), (True, False)])
def test_where_a_promise_is_asked_a_probe_passes_only_with_what_may_be_promised(tmp_path, promise, passes):
    # 19 of 2,000 slow answers: p99 itself is 20 ms, but 1 % of all may well be slower than that
    load = MadeUpLoad("a", 1e9, [], slow_ms=80.0, promise=promise, most_probes=3)
    (folder,) = folders_for(tmp_path, [load])
    search(load, folder)
    first = found(folder).probes[0]
    assert (first.verdict == "pass") is passes
    assert found(folder).objective.promise is promise
    if promise:
        assert first.p99_claim_ms == 80
        assert "p99 is at most 80 ms with 99 % confidence, over the objective of 50 ms" in first.reason


def test_a_rate_of_which_all_answers_are_timely_may_be_promised(tmp_path):
    load = MadeUpLoad("a", 230, [], promise=True)
    (folder,) = folders_for(tmp_path, [load])
    search(load, folder)
    assert found(folder).confirmed
    assert all(probe.p99_claim_ms == 20 for probe in found(folder).probes if probe.verdict == "pass")
