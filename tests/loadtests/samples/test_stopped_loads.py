"""A load that is stopped before its end: every rate is over the time that passed, not over the one that was planned."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest

from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.generator import jobs
from loadtests.generator.load import ROW
from loadtests.options import options_for, read_options
from loadtests.samples.recorder import PARTS
from loadtests.session import Collector, SessionEnd, prepare
from serving.orphans import scratch_prefix

S = 1_000_000_000
START_NS = 5 * S
RATE = 100


def prepared(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="http://127.0.0.1:9")
    for option in options_for("constant"):
        option.add_to(parser)
    given = ["--engine", "http", "--warmup", "2", "--rate", str(RATE), "--duration", "60", *arguments]
    return prepare(read_options(parser.parse_args(given)))


def rows(seconds: float) -> np.ndarray:
    """Right answers after 1 ms to all that was due in the first seconds of a load, its warm-up included."""
    due_ns = START_NS + np.arange(int(seconds * RATE)) * (S // RATE)
    table = np.zeros((len(due_ns), len(ROW)), np.int64)
    for name in ("scheduled_ns", "sent_ns", "first_byte_ns", "done_ns"):
        table[:, ROW.index(name)] = due_ns
    table[:, ROW.index("done_ns")] += S // 1000
    table[:, ROW.index("outcome")] = jobs.OK
    table[:, ROW.index("correct")] = jobs.UNCHECKED
    return table


def summary(seconds: float, *endings: SessionEnd, arguments=()):
    collector = Collector(prepared(*arguments), lambda: START_NS, len(endings))
    collector.add(rows(seconds))
    return collector.finish(list(endings), [])


def stopped(after_s: float) -> SessionEnd:
    return SessionEnd({}, None, stopped_after_ns=round(after_s * S))


def test_rates_are_over_the_measured_seconds_that_passed():
    found = summary(8, stopped(8))
    assert (found.duration_s, found.measured_s) == (60, 6)
    assert found.scheduled == 6 * RATE
    assert found.offered_rate == pytest.approx(RATE)
    assert found.achieved_rate == pytest.approx(RATE)
    assert found.requests_per_s == pytest.approx(RATE, rel=1e-3)
    assert found.images_per_s == pytest.approx(RATE, rel=1e-3)
    assert found.reasons == ["the load was stopped before its end"]


def test_a_load_that_is_stopped_in_its_warmup_has_no_rate():
    found = summary(1, stopped(1))
    assert (found.scheduled, found.measured_s) == (0, 0)
    assert found.offered_rate is found.achieved_rate is found.requests_per_s is None


def test_a_load_that_is_stopped_before_it_begins_has_no_rate():
    assert summary(0, stopped(0)).offered_rate is None


def test_of_several_workers_the_last_that_was_stopped_says_how_long_the_load_was():
    assert summary(8, stopped(7.5), stopped(8)).measured_s == 6


def test_a_load_of_which_one_worker_alone_was_stopped_took_all_of_its_time():
    assert summary(62, stopped(8), SessionEnd({}, None)).measured_s == 60


def test_a_whole_load_is_over_its_planned_time():
    found = summary(62, SessionEnd({}, None))
    assert found.measured_s == 60
    assert found.offered_rate == pytest.approx(RATE)


def test_of_two_loads_that_write_into_one_folder_the_second_is_refused_and_the_first_left_whole(tmp_path):
    out = ("--out", str(tmp_path))
    first = Collector(prepared(*out), lambda: START_NS, 1)
    first.add(rows(8))
    with pytest.raises(LoadTestError, match=rf"--out {tmp_path} is in use by process {os.getpid()}"):
        Collector(prepared(*out), lambda: START_NS, 1)
    assert first.finish([stopped(8)], []).scheduled == 6 * RATE
    assert {path.name for path in tmp_path.iterdir()} == {"samples.parquet", "summary.json"}
    again = Collector(prepared(*out), lambda: START_NS, 1)
    again.release()  # of a load that was refused
    assert Collector(prepared(*out), lambda: START_NS, 1).finish([stopped(0)], []).scheduled == 0


def test_samples_that_are_not_kept_lie_where_a_killed_load_leaves_them_to_be_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    collector = Collector(prepared(), lambda: START_NS, 1)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith(scratch_prefix().name)
    collector.finish([stopped(0)], [])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_for_the_summary_keeps_no_part_of_it(tmp_path, monkeypatch):
    """Half a summary.json would be a broken run directory for whoever reads it, and goes on with it."""
    real = Path.write_text

    def half(path, text, *arguments, **options):
        real(path, text[: len(text) // 2], *arguments, **options)
        raise OSError(28, "No space left on device", str(path))

    collector = Collector(prepared("--out", str(tmp_path)), lambda: START_NS)
    collector.add(rows(4))
    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(LoadEnvironmentError, match=r"summary\.json: No space left on device"):
        collector.finish([stopped(4)], [])
    collector.release()
    assert [path.name for path in tmp_path.iterdir()] == ["samples.parquet"]


def test_a_disk_that_is_full_for_the_samples_keeps_the_parts_that_lie_there(tmp_path, monkeypatch):
    from loadtests.samples import recorder

    def full(_writer, _table, **_options):
        raise OSError(28, "No space left on device")

    collector = Collector(prepared("--out", str(tmp_path)), lambda: START_NS)
    collector.add(rows(4))
    monkeypatch.setattr(recorder.pq.ParquetWriter, "write_table", full)
    monkeypatch.setattr(recorder.pq, "write_table", lambda _table, path, **_options: path.write_bytes(b"a part"))
    monkeypatch.setattr(recorder, "_grouped", lambda parts: [None])
    with pytest.raises(LoadEnvironmentError, match=r"samples\.parquet: No space left on device"):
        collector.finish([stopped(4)], [])
    collector.release()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["00000000.parquet", PARTS]
