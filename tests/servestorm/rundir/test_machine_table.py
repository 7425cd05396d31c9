"""machine.parquet: what is written is read again, and what was edited is named."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from servestorm.errors import StudyError
from servestorm.rundir.machine_table import MachineSecond, machine_bytes, read_machine

S = 10**9
SECONDS = [
    MachineSecond(5 * S, 6 * S, 0.01, 0.74, 0.4, 0.5, 0.02, 0.6, 0.0),
    MachineSecond(6 * S, 7 * S + 3, None, None, None, None, None, None, None),
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "machine.parquet"
    path.write_bytes(machine_bytes(SECONDS))
    return path


def test_the_seconds_are_read_as_they_were_written(path):
    assert read_machine(path) == SECONDS


def test_a_load_without_a_whole_second_has_an_empty_table(tmp_path):
    (tmp_path / "machine.parquet").write_bytes(machine_bytes([]))
    assert read_machine(tmp_path / "machine.parquet") == []


def test_times_are_whole_nanoseconds_of_the_clock_of_the_samples(path):
    table = pq.read_table(path)
    assert table.schema.field("begin_ns").type == table.schema.field("end_ns").type == pa.int64()


def test_a_file_that_is_no_such_table_is_named(path):
    path.write_bytes(b"PAR1 cut short")
    with pytest.raises(StudyError, match=r"machine\.parquet is no whole file of a machine's seconds"):
        read_machine(path)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(SECONDS[::-1], "seconds that are not in order"), ([MachineSecond(6 * S, 5 * S, *[0.0] * 7)], "not in order")],
)
def test_seconds_out_of_order_are_an_edit(path, seconds, words):
    path.write_bytes(machine_bytes(seconds))
    with pytest.raises(StudyError, match=words):
        read_machine(path)


def test_a_moment_that_is_missing_is_an_edit(path):
    table = pq.read_table(path)
    table = table.set_column(0, "begin_ns", pa.array([None, 6 * S], pa.int64()))
    pq.write_table(table, path)
    with pytest.raises(StudyError, match="gaps in its column begin_ns"):
        read_machine(path)
