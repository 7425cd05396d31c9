"""Notes on a study as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from servestorm.analysis.notes import state_notes
from servestorm.rundir.record import read_run
from tests.stand_ins.synthetic_run import make_run


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("runs")))


def notes_of_batches(record, size, *timeouts_us):
    """What a study says of batches whose cells take the timeouts in turn."""
    cells = [
        replace(kept, cell=replace(kept.cell, max_batch_size=size, timeout_us=timeouts_us[place % len(timeouts_us)]))
        for place, kept in enumerate(record.cells)
    ]
    return [note for note in state_notes(replace(record, cells=cells), []) if "batch timeouts" in note]


def test_with_batching_the_report_says_what_the_timeout_means_on_each_engine(record):
    (note,) = notes_of_batches(record, 8, 1500)
    assert note.startswith("Equal batch timeouts are not equal waits: ")
    assert "savedmodel looks about once a millisecond" in note
    assert "TorchServe takes whole milliseconds, rounded up (2 ms for 1,500 µs)" in note


def test_without_batching_nothing_waits_for_a_batch(record):
    assert notes_of_batches(record, 1, 1500) == []


@pytest.mark.parametrize(("timeout_us", "delay_ms"), [(100, 1), (1000, 1), (1001, 2), (5000, 5)])
def test_the_delay_that_is_named_is_the_one_that_torchserve_is_given(record, timeout_us, delay_ms):
    (note,) = notes_of_batches(record, 8, timeout_us)
    assert f"{delay_ms} ms for {timeout_us:,} µs" in note
