"""Without --trace-format a file is read in the one way that fits, which is named, or it is refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.errors import LoadTestError
from tests.loadtests.arrivals.traces import trace_text as text
from tests.loadtests.arrivals.traces.trace_text import file_of, replay, seconds

# fmt: off
DETECTED = [
    (text.AZURE_2019, {}, "azure-functions-2019", "1, 2, ... (minutes)"),
    (text.AZURE_2021, {}, "azure-functions-2021", "end_timestamp, duration"),
    (text.AZURE_LLM_2023, {}, "azure-llm", "TIMESTAMP"),
    (text.AZURE_LLM_2024, {}, "azure-llm", "TIMESTAMP"),
    (text.AZURE_LMM, {}, "azure-lmm-2025", "TIMESTAMP, NumImages"),
    (text.BURSTGPT_1, {}, "burstgpt", "Timestamp"),
    (text.BURSTGPT_3, {}, "burstgpt", "Timestamp"),
    (text.HEADERLESS, {}, "timestamps-s", "1"),
    ("t\n" + text.HEADERLESS, {}, "timestamps-s", "t"),
    ("id,arrival_time_ms\n7,1\n8,2\n", {}, "timestamps-ms", "arrival_time_ms"),
    ("id,arrivalTimeUs\n7,1\n8,2\n", {}, "timestamps-us", "arrivalTimeUs"),
    ("1700000000\n1700000001\n", {}, "timestamps-s", "1"),
    ("a1,1700000000123\na2,1700000000125\n", {}, "timestamps-ms", "2"),
    ("ts\n1700000000123456\n", {}, "timestamps-us", "ts"),
    ("ts\n1700000000123456789\n", {}, "timestamps-ns", "ts"),
    ("2024-01-01T00:00:00Z\n2024-01-01T00:00:01Z\n", {}, "timestamps-iso", "1"),
    ("user,created\n1,2024-01-01\n2,2024-01-02\n", {"column": "created"}, "timestamps-iso", "created"),
    ("gap_ms,size\n5,1\n7,1\n", {}, "intervals-ms", "gap_ms"),
    ("minute,count\n0,5\n1,3\n", {"bin_s": 60.0}, "counts", "count"),
    ("5\n3\n", {"bin_s": 60.0}, "counts", "1"),
    ("a,b\n1,3\n2,4\n", {"column": "b"}, "timestamps-s", "b"),
]
# fmt: on


@pytest.mark.parametrize(("content", "how", "name", "column"), DETECTED)
def test_format_and_column_are_detected_and_recorded(content, how, name, column, tmp_path):
    read = replay(file_of(tmp_path, content), **how)
    assert (read.record["format"], read.record["column"], read.record["detected"]) == (name, column, True)
    assert f"is read as {name} (detected; --trace-format names another)" in read.reading
    assert f"column {column}" in read.reading


def test_a_format_that_was_named_is_recorded_as_such(tmp_path):
    read = replay(file_of(tmp_path, text.PERF_ANALYZER), format="intervals-us")
    assert (read.record["format"], read.record["detected"]) == ("intervals-us", False)
    assert "as --trace-format says" in read.reading


@pytest.mark.parametrize(
    ("content", "how", "readings"),
    [
        (text.PERF_ANALYZER, {}, "column 1, without a header, can be timestamps, intervals or counts"),
        ("0.1\n0.2\n", {}, "can be timestamps, intervals or counts"),
        ("0\n100\n250\n", {}, "can be timestamps, intervals or counts"),
        ("value\n1\n2\n", {}, "column 'value' can be timestamps, intervals or counts"),
        ("gap\n1\n2\n", {}, "column 'gap' can be intervals in any unit"),
        ("gap\n1\n2\n", {"column": "gap"}, "column 'gap' can be intervals in any unit"),
        ("t\n123456789012345\n", {}, "column 't' can be timestamps in several units"),
        ("start,arrival\n1,1\n2,2\n", {}, "several columns that may hold the arrivals (start, arrival)"),
        ("ContextTokens,GeneratedTokens\n1,1\n2,2\n", {}, "several columns that may hold the arrivals"),
        ("1,5\n2,6\n", {}, "several columns that may hold the arrivals (1, 2)"),
        ("0,1\n1,5\n2,3\n", {}, "several columns that may hold the arrivals (1, 2)"),
        ("1,2\n2,5\n3,3\n", {}, "several columns that may hold the arrivals (1, 2)"),
    ],
)
def test_two_possible_readings_are_refused_with_the_formats(content, how, readings, tmp_path):
    with pytest.raises(LoadTestError, match=r"^[^\n]+\.$") as caught:
        replay(file_of(tmp_path, content), **how)
    assert readings in str(caught.value)
    assert "--trace-format (timestamps-s, timestamps-ms, " in str(caught.value)


@pytest.mark.parametrize("column", ["", "count"])
def test_counts_need_the_length_of_a_bin(column, tmp_path):
    with pytest.raises(LoadTestError, match=r"seems to hold counts \('count'\): give --trace-bin SECONDS"):
        replay(file_of(tmp_path, "name,count\na,5\nb,3\n"), column=column)


def test_the_first_row_of_a_file_without_a_header_is_data(tmp_path):
    assert seconds(file_of(tmp_path, text.HEADERLESS)) == [0, 0.5, 1.25, 2]
    assert seconds(file_of(tmp_path, "\n\n" + text.HEADERLESS)) == [0, 0.5, 1.25, 2]
    assert seconds(file_of(tmp_path, "\ufeff" + text.HEADERLESS)) == [0, 0.5, 1.25, 2]
    assert len(seconds(file_of(tmp_path, "5\n3\n"), bin_s=1.0)) == 8


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    assert seconds(file_of(tmp_path, "\ufefft\n1\n3\n")) == [0, 2]


def test_parquet_is_known_by_its_content(tmp_path):
    pq.write_table(pa.table({"arrival_ms": [5, 7], "size": [1, 2]}), tmp_path / "trace.bin")
    assert seconds(tmp_path / "trace.bin") == [0, 0.002]


@pytest.mark.parametrize("content", ["0,1\n1,5\n2,3\n", "1,2\n2,5\n3,3\n"])
def test_a_column_by_its_number_is_the_one_at_that_place_with_its_first_row(content, tmp_path):
    read = seconds(file_of(tmp_path, content), column="1", format="timestamps-s")
    assert read == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "how", "reason"),
    [
        ('{"a": "' + "x" * 400_000 + '"}\n', {}, "cannot be read as CSV or Parquet: field larger than field limit"),
        ("HashOwner,HashApp,HashFunction,Trigger,1,1\na,b,c,http,1,1\n", {}, "has two columns of minute 1"),
        ("count\n1e300\n5\n", {"bin_s": 1.0}, "holds counts over 1,000,000,000 in column 'count'"),
        ("count\n9000000000000000000\n9000000000000000000\n", {"bin_s": 1.0}, "holds counts over 1,000,000,000"),
        (
            "HashOwner,HashApp,HashFunction,Trigger,1,2\na,b,c,http,9000000000000000000,1\n",
            {},
            "holds counts over 1,000,000,000 in column '1'",
        ),
    ],
)
def test_what_no_trace_holds_is_refused_in_a_sentence(content, how, reason, tmp_path):
    with pytest.raises(LoadTestError, match=r"^[^\n]+\.$") as caught:
        replay(file_of(tmp_path, content), **how)
    assert reason in str(caught.value)
