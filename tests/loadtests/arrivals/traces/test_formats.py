"""Each format gives the arrivals that the authors of its data meant, from CSV, gzip and Parquet."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from loadtests.arrivals.options import TRACE_FORMATS
from loadtests.arrivals.traces.formats import FORMATS
from loadtests.errors import LoadTestError
from tests.loadtests.arrivals.traces import trace_text as text
from tests.loadtests.arrivals.traces.trace_text import file_of, replay, seconds

# fmt: off
EXACT = [
    ("azure-functions-2021", text.AZURE_2021, [0, 1_259_427_000, 39_203_159_000, 51_502_778_000, 59_401_603_000,
                                               60_005_720_000]),
    ("azure-llm", text.AZURE_LLM_2023, [0, 4_314_579_000, 4_541_977_000, 5_710_427_000]),
    ("azure-llm", text.AZURE_LLM_2024, [0, 998_837_000, 1_156_825_000]),
    ("azure-lmm-2025", text.AZURE_LMM, [0, 694_000_000, 1_747_000_000]),
    ("burstgpt", text.BURSTGPT_1, [0, 40_000_000_000, 113_000_000_000]),
    ("burstgpt", text.BURSTGPT_3, [0, 51_500_000_000]),
    ("timestamps-s", text.HEADERLESS, [0, 500_000_000, 1_250_000_000, 2_000_000_000]),
    ("timestamps-s", "t\n" + text.HEADERLESS, [0, 500_000_000, 1_250_000_000, 2_000_000_000]),
    ("timestamps-ms", "5\n7\n7\n", [0, 2_000_000, 2_000_000]),
    ("timestamps-us", "1700000000000001\n1700000000000004\n", [0, 3_000]),
    ("timestamps-ns", "1700000000000000001\n1700000000000000004\n", [0, 3]),
    ("timestamps-iso", "2024-02-28T23:59:59Z\n2024-02-29T00:00:00.000000001Z\n", [0, 1_000_000_001]),
    ("timestamps-iso", "when\n2024-01-01 12:00:00+02:00\n2024-01-01 10:00:01+00:00\n", [0, 1_000_000_000]),
    ("intervals-s", "0.5\n0\n0.25\n", [500_000_000, 500_000_000, 750_000_000]),
    ("intervals-ms", "gap\n5\n7\n", [5_000_000, 12_000_000]),
    ("intervals-us", text.PERF_ANALYZER, [100_000_000, 300_000_000, 600_000_000, 1_000_000_000]),
    ("intervals-ns", "5\n7\n", [5, 12]),
]
# fmt: on


@pytest.mark.parametrize(("name", "content", "arrivals_ns"), EXACT)
def test_a_named_format_gives_the_exact_arrivals(name, content, arrivals_ns, tmp_path):
    assert replay(file_of(tmp_path, content), format=name).schedule.whole().tolist() == arrivals_ns
    assert replay(file_of(tmp_path, content, "trace.csv.gz"), format=name).schedule.whole().tolist() == arrivals_ns


@pytest.mark.parametrize(("name", "content", "arrivals_ns"), [one for one in EXACT if "," in one[1]])
def test_parquet_gives_the_same_arrivals(name, content, arrivals_ns, tmp_path):
    table = pa.csv.read_csv(io.BytesIO(content.encode()))
    pq.write_table(table, tmp_path / "t.parquet")
    assert replay(tmp_path / "t.parquet", format=name).schedule.whole().tolist() == arrivals_ns


def test_every_format_that_the_command_line_offers_is_in_the_table():
    assert tuple(FORMATS) == TRACE_FORMATS
    assert all(bool(known.requests) != bool(known.counts) for known in FORMATS.values())


def test_intervals_of_perf_analyzer_begin_again_at_the_end_of_the_file(tmp_path):
    path = file_of(tmp_path, "100000\n200000\n500000\n", "intervals.txt")
    expected = [0.1, 0.3, 0.8, 0.9, 1.1, 1.6, 1.7, 1.9]
    assert seconds(path, format="perf-analyzer", duration_s=2) == pytest.approx(expected)
    assert seconds(path, format="intervals-us", duration_s=2) == pytest.approx(expected[:3])


def test_rows_of_azure_functions_2021_are_sorted_by_arrival(tmp_path):
    """The published file is in the order of the ends: a long invocation comes after later ones."""
    head, *rows = text.AZURE_2021.splitlines()
    by_end = "\n".join([head, *sorted(rows, key=lambda row: float(row.split(",")[2]))])
    assert seconds(file_of(tmp_path, by_end)) == seconds(file_of(tmp_path, text.AZURE_2021, "by_arrival.csv"))


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz", "trace.parquet"])
def test_a_minute_of_azure_functions_2019_has_the_invocations_of_all_functions(name, tmp_path):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.csv.read_csv(io.BytesIO(text.AZURE_2019.encode())), path)
    else:
        file_of(tmp_path, text.AZURE_2019, name)
    due_ns = replay(path).schedule.whole()
    assert np.bincount(due_ns // 60_000_000_000).tolist() == [14, 21, 36, 43]
    assert (np.diff(due_ns) >= 0).all()
    assert replay(path).schedule.whole().tolist() == due_ns.tolist()
    assert replay(path, seed=2).schedule.whole().tolist() != due_ns.tolist()


def test_a_filter_takes_the_rows_with_a_value(tmp_path):
    minutes = replay(file_of(tmp_path, text.AZURE_2019), row_filter="Trigger=http").schedule.whole() // 60_000_000_000
    assert np.bincount(minutes).tolist() == [3, 0, 5, 2]
    assert seconds(file_of(tmp_path, text.BURSTGPT_1), row_filter="Model=ChatGPT") == [0, 40]
    pq.write_table(pa.table({"t": [1.0, 2.0, 4.0], "k": [1, 2, 1]}), tmp_path / "t.parquet")
    assert seconds(tmp_path / "t.parquet", row_filter="k=1") == [0, 3]


def test_arrivals_of_a_minute_are_uniform_in_it_and_cut_where_the_load_ends(tmp_path):
    path = file_of(tmp_path, "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,60000,60000\n")
    whole, cut = (replay(path, duration_s=length_s).schedule.whole() / 1e9 for length_s in (120, 90))
    assert len(whole) == 120_000
    assert len(cut) == pytest.approx(90_000, rel=0.02)
    assert cut.max() < 90
    quarters = np.bincount((whole[:60_000] // 15).astype(int))
    assert quarters.tolist() == pytest.approx([15_000] * 4, rel=0.05)


def test_counts_of_a_short_load_are_not_made_into_arrivals_first(tmp_path):
    """Most of a day's invocations would be over the limit; those of its first second are not."""
    busy = 150_000_000
    path = file_of(tmp_path, f"HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,a,f,http,6000,{busy},{busy}\n")
    assert len(replay(path, duration_s=60).schedule.whole()) == 6000
    assert len(replay(path, duration_s=180, rate_scale=1e-5).schedule.whole()) == pytest.approx(3000, rel=0.1)
    with pytest.raises(LoadTestError, match="over 200,000,000 arrivals in 180 s: lower --duration or --trace-rate"):
        replay(path, duration_s=180)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_time_may_be_stretched_without_bounds(scale, tmp_path):
    arrivals = replay(file_of(tmp_path, "t\n1\n2\n"), time_scale=scale, duration_s=1).schedule.whole()
    assert arrivals.tolist() == ([0, 0] if scale < 1 else [0])
    counted = replay(file_of(tmp_path, "n\n1\n2\n"), bin_s=1.0, time_scale=scale, duration_s=1).schedule.whole()
    assert len(counted) == (3 if scale < 1 else 0)


def test_many_small_and_large_bins_keep_their_counts(tmp_path):
    counts = np.random.default_rng(0).integers(0, 5, 3000)
    counts[[7, 2000]] = 2_500_000
    path = file_of(tmp_path, "n\n" + "\n".join(map(str, counts)))
    due_ns = replay(path, bin_s=0.001, time_scale=2, duration_s=6).schedule.whole()
    assert np.bincount(due_ns // 2_000_000, minlength=3000).tolist() == counts.tolist()
    assert (np.diff(due_ns) >= 0).all()


def test_the_images_of_a_request_stay_with_it(tmp_path):
    path = file_of(tmp_path, text.AZURE_LMM)
    read = replay(path)
    assert read.images.tolist() == [1, 3, 1]
    assert (read.record["mean_images"], read.record["left_out_without_images"]) == (1.667, 2)
    assert "2 requests without an image are left out" in read.reading
    twice = replay(path, rate_scale=2)
    assert sorted(twice.images.tolist()) == [1, 1, 1, 1, 3, 3]
    places = np.searchsorted(read.schedule.whole(), twice.schedule.whole(), side="right") - 1
    assert twice.images.tolist() == read.images[places].tolist()
    assert replay(path, duration_s=1).images.tolist() == [1, 3]


def test_text_times_of_parquet_may_be_timestamps(tmp_path):
    times = pa.array([1_700_000_000_000_000_001, 1_700_000_000_500_000_001], pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"TIMESTAMP": times, "ContextTokens": [1, 2], "GeneratedTokens": [1, 2]}), tmp_path / "t")
    assert seconds(tmp_path / "t") == [0, 0.5]


@pytest.mark.parametrize(
    ("content", "how", "sentence"),
    [
        (text.AZURE_2019, {"bin_s": 30.0}, "(azure-functions-2019) has bins of 60 s: leave --trace-bin out"),
        (text.AZURE_2021, {"bin_s": 30.0}, "(azure-functions-2021) holds no counts: leave --trace-bin out"),
        (text.AZURE_2019.replace(",2,3,4\n", ",2,4,5\n"), {}, "has no column for minute 3"),
        (text.AZURE_2019.replace("3,0,5", "3,,5"), {}, "has gaps: 1 empty cells in column '2'"),
        (text.AZURE_2019.replace("3,0,5", "3,-1,5"), {}, "negative or not whole in column '2'"),
        (text.AZURE_2019.replace("3,0,5", "3,0.5,5"), {}, "a minute holds a whole number of invocations"),
        (text.AZURE_2019.replace("3,0,5", "3,0"), {}, "cannot be read as CSV or Parquet"),
        (text.AZURE_2019.split("\n")[0] + "\n", {"row_filter": "Trigger=http"}, "no row with Trigger = http"),
        (text.AZURE_2019, {"row_filter": "Trigger=nothing"}, "has no row with Trigger = nothing: check --trace-filter"),
        (text.AZURE_2019, {"row_filter": "Triger=http"}, "has no column 'Triger'"),
        (text.AZURE_2019, {"row_filter": "http"}, "--trace-filter must be COLUMN=VALUE"),
        (
            text.AZURE_2019,
            {"format": "azure-functions-2021"},
            "is not azure-functions-2021: it has no column 'end_timest",
        ),
        (text.AZURE_2019, {"format": "azure-functions-2019", "column": "2"}, "leave --trace-column out"),
        (text.AZURE_2021.replace("0.134", "-1"), {}, "holds negative durations"),
        (text.AZURE_2021.replace("5160.142570", ""), {}, "has gaps: 1 empty cells in column 'end_timestamp'"),
        (text.AZURE_2021.split("\n")[0] + "\n", {}, "is empty"),
        (text.AZURE_LLM_2023.replace("50.99", "40.99"), {}, "out of order at row 2: sort it by time"),
        (text.AZURE_LLM_2024.replace("01+00:00", "01"), {}, "mixes times with and without a zone"),
        (
            text.AZURE_LLM_2023.replace("2023-11-16 18:15:50.9951690", "yesterday"),
            {},
            "holds 'yesterday' in row 2, not",
        ),
        (text.AZURE_LMM.replace(",3,", ",-3,"), {}, "numbers of images that are negative or not whole"),
        (text.AZURE_LMM.replace(",1,", ",0,").replace(",3,", ",0,"), {}, "no request with an image"),
        (text.BURSTGPT_1.replace("\n45,", "\n,"), {}, "has gaps: 1 empty cells in column 'Timestamp'"),
        (text.PERF_ANALYZER.replace("200000", "-2"), {"format": "intervals-us"}, "negative intervals"),
        ("0\n0\n", {"format": "perf-analyzer"}, "intervals add up to 0"),
        ("x\n", {"format": "timestamps-s"}, "has no numeric column"),
        ("1\n2\n", {"format": "timestamps-iso"}, "has no column of ISO 8601 times"),
        ("1\n2\n", {"format": "counts"}, "needs --trace-bin SECONDS"),
        ("1\n2\n", {"format": "timestamps-s", "bin_s": 1.0}, "holds no counts: leave --trace-bin out"),
        ("t,u\n1,2\n2,3\n", {"format": "intervals-s", "column": "v"}, "has no column 'v', only t, u"),
        ("t\n1700000000000\n9700000000000\n", {"format": "timestamps-s"}, "spans over 73 years"),
        ("t\n1\n2\n", {"rate_scale": float("nan")}, "must be over 0"),
        ("t\n1\n2\n", {"rate_scale": 1e30}, "over 200,000,000 arrivals in 1000 s: lower --duration or --trace-rate"),
        ("n\n1\n2\n", {"bin_s": -1.0}, "--trace-bin must be a number of seconds over 0, not -1"),
        ("n\n1\n2\n", {"bin_s": float("nan")}, "--trace-bin must be a number of seconds over 0, not nan"),
    ],
)
def test_what_does_not_fit_is_one_sentence(content, how, sentence, tmp_path):
    with pytest.raises(LoadTestError, match=r"^[^\n]+\.$") as caught:
        replay(file_of(tmp_path, content), **how)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("head", "name"), [(b"PK\x03\x04", "zip"), (b"Rar!\x1a\x07", "rar"), (b"\xfd7zXZ\x00", "xz")])
def test_an_archive_is_to_be_unpacked(head, name, tmp_path):
    (tmp_path / "t").write_bytes(head + bytes(300))
    with pytest.raises(LoadTestError, match=rf"is an archive \({name}\): unpack it"):
        replay(tmp_path / "t")


def test_damaged_files_are_named(tmp_path):
    whole = file_of(tmp_path, text.BURSTGPT_1, "t.csv.gz").read_bytes()
    for content in (whole[:40], b"PAR1 and no more"):
        (tmp_path / "t").write_bytes(content)
        with pytest.raises(LoadTestError, match=r"^[^\n]*cannot be read[^\n]*$"):
            replay(tmp_path / "t")
