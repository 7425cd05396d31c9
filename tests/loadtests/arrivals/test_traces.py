"""Recorded traffic becomes a schedule, or a sentence that says what is wrong with the file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.arrivals.traces.replay import TraceOptions, read_trace
from loadtests.errors import LoadTestError


def read(path, column="", bin_s=0.0, time_scale=1.0, rate_scale=1.0, duration_s=1000.0, seed=1):
    trace = TraceOptions(Path(path), column=column, bin_s=bin_s, time_scale=time_scale, rate_scale=rate_scale)
    return read_trace(trace, duration_s, seed).schedule.whole()


@pytest.fixture
def timestamps(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("name,Timestamp\na,5.0\nb,5.5\nc,7.25\n")
    return path


def test_timestamps_begin_at_their_first(timestamps):
    assert (read(timestamps) / 1e9).tolist() == [0, 0.5, 2.25]


def test_parquet_reads_like_csv(timestamps, tmp_path):
    pq.write_table(pa.table({"Timestamp": [5.0, 5.5, 7.25]}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").tolist() == read(timestamps).tolist()


def test_time_is_stretched_and_cut(timestamps):
    assert (read(timestamps, time_scale=2) / 1e9).tolist() == [0, 1, 4.5]
    assert (read(timestamps, duration_s=1) / 1e9).tolist() == [0, 0.5]


def test_counts_are_spread_within_their_bins(tmp_path):
    (tmp_path / "c.csv").write_text("minute,count\n" + "\n".join(f"{i},{n}" for i, n in enumerate([3, 0, 50])))
    seconds = read(tmp_path / "c.csv", "count", bin_s=60) / 1e9
    assert [int(((seconds >= lo) & (seconds < lo + 60)).sum()) for lo in (0, 60, 120)] == [3, 0, 50]
    assert (np.diff(seconds) >= 0).all()


@pytest.mark.parametrize("scale", [0.25, 1.5, 3.0])
def test_the_rate_is_scaled_without_losing_order_or_repeatability(scale, tmp_path):
    times = np.cumsum(np.random.default_rng(0).exponential(0.01, 10_000))
    pq.write_table(pa.table({"t": times}), tmp_path / "t.parquet")
    scaled = read(tmp_path / "t.parquet", rate_scale=scale)
    assert len(scaled) == pytest.approx(scale * 10_000, rel=0.05)
    assert (np.diff(scaled) >= 0).all()
    assert scaled.tolist() == read(tmp_path / "t.parquet", rate_scale=scale).tolist()


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        ("t\n1\n3\n2\n", {}, "out of order at row 3"),
        ("a,t\n1,1\n1,\n1,3\n", {"column": "t"}, "has gaps: 1 empty cells"),
        ("t\n1\nnan\n3\n", {}, "has gaps"),
        ("t\n", {}, "no numeric column"),
        ("t\nx\n", {}, "no numeric column"),
        ("t\nx\n", {"column": "t"}, "not numbers"),
        ("t\n1\n", {"column": "u"}, "has no column 'u', only t"),
        ("n\n-1\n", {"bin_s": 1.0}, "negative or not whole"),
        ("n\n1.5\n", {"bin_s": 1.0}, "negative or not whole"),
        ("n\n1000000000\n", {"bin_s": 1.0}, "over 200,000,000 arrivals"),
        ("t\n1\n", {"time_scale": 0}, "must be over 0"),
        ("", {}, "cannot be read"),
    ],
)
def test_a_bad_trace_is_named_in_one_sentence(text, arguments, sentence, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(LoadTestError, match=r"^[^\n]+$") as caught:
        read(tmp_path / "t.csv", **arguments)
    assert sentence in str(caught.value)


def test_a_missing_trace_is_named(tmp_path):
    with pytest.raises(LoadTestError, match="cannot be read"):
        read(tmp_path / "none.csv")
