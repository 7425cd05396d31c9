"""`servestorm compare`: what is a regression, what may be compared, and every broken run in one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, stdev
from xml.etree import ElementTree

import pytest

from servestorm.cli.exit_codes import guard
from servestorm.cli.main import parser
from servestorm.cli.verbs.compare import exit_code, run
from servestorm.compare.comparison import base_key, compare
from servestorm.compare.junit import junit
from servestorm.compare.text import headline, markdown
from servestorm.errors import StudyError
from servestorm.methods.verdict import signed, verdict
from servestorm.rundir.files import RESULTS_VERSION

P50 = [10.0, 10.1, 9.9, 10.05, 9.95]
P99 = [30.0, 31.0, 29.5, 30.5, 30.2]
RATE = [80.0, 80.4, 79.8, 80.1, 79.9]


def times(values, factor):
    return [value * factor for value in values]


def results(**metrics):
    """A results.json with one engine; p50 and so on replace the usual runs, None leaves a metric out."""
    usual = {"p50": P50, "p99": P99, "images_per_s": RATE, "failed_percent": [0.0] * 5}
    runs = {name: values for name, values in {**usual, **metrics}.items() if values is not None}
    return {
        "schema_version": RESULTS_VERSION,
        "id": "20260101-000000-study",
        "state": "complete",
        "reason": None,
        "study": {
            "plan": {
                "name": "study",
                "model": [{"name": "cnn"}],
                "payload": ["image"],
                "protocol": ["rest"],
                "images_per_request": [1],
                "threads": [1],
                "repetitions": 5,
                "steady": {"rate_per_s": 80.0, "duration_s": 10.0, "warmup_s": 2.0},
                "bursty": None,
            },
            "cores": {"engine": [0], "generator": [1], "notes": []},
            "engines": {"savedmodel": "1.0"},
        },
        "environment": {"cpu_model": "Made-up Processor 1", "cores_usable": 2},
        "models": [{"name": "cnn", "version": None, "savedmodel": {"sha256": "a" * 64}, "mar": None}],
        "engines": ["savedmodel"],
        "metrics": [metric(f"steady.{name}", values) for name, values in runs.items()],
    }


def metric(key, values):
    better = "higher" if key.endswith("per_s") else "lower"
    known = [value for value in values if value is not None]
    value = {
        "runs": values,
        "value": fmean(known) if known else None,
        "sd": stdev(known) if len(known) > 1 else None,
        "value_from": "runs" if known else None,
        "valid": True,
    }
    return {"key": key, "label": key, "unit": "ms", "better": better, "values": {"savedmodel": value}}


@pytest.fixture
def write(tmp_path):
    """Write results as a run directory's; returns the directory."""

    def written(name, document):
        folder = tmp_path / name
        folder.mkdir()
        text = document if isinstance(document, str) else json.dumps(document)
        (folder / "results.json").write_text(text)
        return folder

    return written


@pytest.fixture
def pair(write):
    """Compare the usual results, or `old`, with these metrics of NEW."""

    def compared(old=None, margin=5.0, **metrics):
        paths = write("old", results(**(old or {}))), write("new", results(**metrics))
        return compare(*paths, margin_percent=margin)

    return compared


def findings(comparison):
    return {row.key: row.finding for row in comparison.rows}


def test_the_same_numbers_pass(pair):
    found = pair()
    assert set(findings(found).values()) == {"equivalent"}
    assert exit_code(found) == 0
    assert headline(found) == "No regression beyond 5 % was found."


def test_a_latency_worse_than_the_margin_is_a_regression(pair):
    found = pair(p99=times(P99, 1.2))
    assert findings(found)["steady.p99"] == "regression"
    assert exit_code(found) == 1
    assert headline(found).startswith(
        "REGRESSION: NEW is worse by more than 5 % in steady.p99 of savedmodel (+20.0 %)."
    )


def test_a_throughput_lower_than_the_margin_is_a_regression(pair):
    assert findings(pair(images_per_s=times(RATE, 0.8)))["steady.images_per_s"] == "regression"


def test_an_improvement_passes(pair):
    found = pair(p50=times(P50, 0.7), images_per_s=times(RATE, 1.3))
    assert (findings(found)["steady.p50"], findings(found)["steady.images_per_s"]) == ("better", "better")
    assert exit_code(found) == 0


def test_a_real_loss_within_the_margin_is_told_and_passes(pair):
    found = pair(p50=times(P50, 1.08), margin=10.0)
    assert findings(found)["steady.p50"] == "equivalent"
    wide = times(P50[:3], 1.045)
    found = compare_lists(P50[:3], wide, margin=4.6)
    assert found.rows[0].verdict.p_holm < 0.05
    assert findings(found)["steady.p50"] == "worse"
    assert exit_code(found) == 0


def compare_lists(old, new, margin):
    """Two lists of p50 alone, compared without files."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("old.json", "new.json")]
        for path, values in zip(paths, (old, new), strict=True):
            others = dict.fromkeys(("p99", "images_per_s", "failed_percent"))
            path.write_text(json.dumps(results(p50=values, **others)))
        return compare(*paths, margin_percent=margin)


def test_scatter_alone_is_no_regression_and_is_said_plainly(pair):
    found = pair(p99=[28.0, 40.0, 27.0, 41.0, 33.0])
    assert findings(found)["steady.p99"] == "inconclusive"
    assert exit_code(found) == 0
    assert "In 1 of 4 comparisons the runs do not tell" in headline(found)


def test_one_repetition_can_show_nothing_and_exits_4(pair):
    one = {"p50": [10.0], "p99": [30.0], "images_per_s": [80.0], "failed_percent": [0.0]}
    found = pair(old=one, **times_each(one, 5))
    assert set(findings(found).values()) == {"inconclusive"}
    assert "at least 2 of each are needed" in found.rows[0].reason
    assert exit_code(found) == 4
    assert headline(found).startswith("Nothing could be compared")


def times_each(metrics, factor):
    return {name: times(values, factor) for name, values in metrics.items()}


def test_failures_where_there_were_none_are_a_regression_beyond_any_margin(pair):
    found = pair(failed_percent=[1.0, 1.4, 0.8, 1.1, 1.2], margin=900.0)
    assert findings(found)["steady.failed_percent"] == "regression"


def test_a_number_that_new_lost_does_not_pass(pair):
    found = pair(p99=[None] * 5)
    assert findings(found)["steady.p99"] == "lost"
    assert exit_code(found) == 4
    assert "NEW gave no number for steady.p99 of savedmodel" in headline(found)


def test_invalid_runs_are_never_compared(write):
    documents = [results(), results(p50=times(P50, 2))]
    documents[1]["metrics"][0]["values"]["savedmodel"]["valid"] = False
    found = compare(write("old", documents[0]), write("new", documents[1]))
    assert (found.rows[0].finding, found.rows[0].verdict) == ("lost", None)
    assert "INVALID" in found.rows[0].reason
    back = compare(*(write(name, document) for name, document in zip("ab", documents[::-1], strict=True)))
    assert back.rows[0].finding == "not compared"
    assert exit_code(back) == 0


def test_disturbed_runs_are_never_compared_and_the_reason_names_the_cause(write):
    documents = [results(), results(p50=times(P50, 2))]
    reason = "other programs used 74 % of the study's cores"
    disturbed = {"cause": "other_load", "percent": 74.2, "limit_percent": 15.0, "reason": reason}
    documents[1]["metrics"][0]["values"]["savedmodel"]["disturbed"] = disturbed
    found = compare(write("old", documents[0]), write("new", documents[1]))
    assert (found.rows[0].finding, found.rows[0].verdict) == ("lost", None)
    assert found.rows[0].reason.startswith(f"NEW has only DISTURBED runs of it ({reason})")
    assert exit_code(found) == 4
    assert reason in junit(found) and reason in markdown(found)
    back = compare(*(write(name, document) for name, document in zip("ab", documents[::-1], strict=True)))
    assert back.rows[0].finding == "not compared"
    assert back.rows[0].reason.startswith(f"OLD has only DISTURBED runs of it ({reason})")
    assert exit_code(back) == 0


def test_a_side_that_ignored_disturbance_may_be_compared_and_says_so(write):
    documents = [results(), results()]
    documents[1]["study"]["plan"]["disturbance"] = "ignored"
    found = compare(write("old", documents[0]), write("new", documents[1]))
    assert "NEW ignored what other programs and machines did (disturbance: ignored)." in found.notes


def test_the_margin_is_the_plans_unless_one_is_given(write):
    document = results()
    document["study"]["plan"]["margin_percent"] = 25.0
    paths = write("old", document), write("new", results(p99=times(P99, 1.2)))
    assert exit_code(compare(*paths)) == 0
    assert exit_code(compare(*paths, margin_percent=5.0)) == 1


def test_every_comparison_of_the_gate_is_one_family(pair):
    slower = times(P50, 1.01)
    alone = compare_lists(P50, slower, margin=0.0).rows[0].verdict
    among = pair(p50=slower, p99=P99[::-1], images_per_s=RATE[::-1], margin=0.0).rows[0].verdict
    assert among.p == alone.p
    assert among.p_holm == pytest.approx(min(1.0, 3 * alone.p))  # p99 and the rate could be tested too


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d["study"]["plan"].update(payload=["tensor"]), "payload (image against tensor)"),
        (lambda d: d["study"]["plan"].update(protocol=["grpc"]), "protocol (rest against grpc)"),
        (lambda d: d["study"]["plan"].update(images_per_request=[1, 8]), "images_per_request (1 against 1, 8)"),
        (lambda d: d["study"]["plan"].update(threads=[4]), "threads (1 against 4)"),
        (lambda d: d["study"]["plan"]["steady"].update(rate_per_s=90.0), "steady.rate_per_s (80 against 90)"),
        (lambda d: d["study"]["plan"].update(model=[{"name": "b"}]), "model (cnn against b)"),
        (lambda d: d["study"]["cores"].update(engine=[0, 1]), "cores of the engines (1 against 2)"),
        (lambda d: d["models"][0]["savedmodel"].update(sha256="b" * 64), "savedmodel of cnn (SHA-256 aaaaaaaaaaaa"),
    ],
)
def test_runs_that_did_not_ask_the_same_are_refused_unless_forced(write, change, told):
    document = results()
    change(document)
    paths = write("old", results()), write("new", document)
    with pytest.raises(StudyError, match="compare runs that asked the same, or give --force") as error:
        compare(*paths)
    assert told in str(error.value)
    forced = compare(*paths, force=True)
    assert "FORCED: the runs differ in" in markdown(forced)
    assert told.split(" (")[0] in markdown(forced)
    assert "FORCED" in junit(forced)


def test_servers_that_ran_already_must_have_had_the_same_settings(write):
    documents = [results(), results(), results()]
    for document, size in zip(documents, (1, 4, 1), strict=True):
        document["study"]["plan"]["backend"] = "attach"
        one = {"engine": "savedmodel", "name": "max_batch_size", "values": [size]}
        document["server_settings"] = [one, {**one, "name": "threads", "values": []}]
    paths = [write(name, document) for name, document in zip(("old", "new", "like"), documents, strict=True)]
    assert compare(paths[0], paths[2]).differs == []
    assert compare(*paths[:2], force=True).differs == ["max_batch_size of savedmodel (1 against 4)"]


def test_a_scenario_that_only_one_run_asked_for_is_no_difference(write):
    document = results()
    document["study"]["plan"].update(bursty={"base_rate": 5.0}, repetitions=9, seed=7, name="other")
    assert exit_code(compare(write("old", results()), write("new", document))) == 0


def test_the_files_of_an_engine_that_is_not_compared_do_not_matter(write):
    documents = [results(), results()]
    for document, sign in zip(documents, "cd", strict=True):
        document["models"][0]["mar"] = {"sha256": sign * 64}
    assert compare(write("old", documents[0]), write("new", documents[1])).differs == []


def test_files_that_cannot_be_told_apart_are_noted(write):
    document = results()
    document["models"] = [{}]
    found = compare(write("old", results()), write("new", document))
    assert any("Whether both served the same files cannot be told" in note for note in found.notes)


def test_other_machines_versions_and_unfinished_studies_are_noted(write):
    document = results()
    document.update(state="interrupted", reason="interrupted by Ctrl-C.")
    document["environment"]["cpu_model"] = "Another"
    document["study"]["engines"]["savedmodel"] = "2.0"
    notes = " ".join(compare(write("old", results()), write("new", document)).notes)
    assert "NEW is not complete: interrupted (interrupted by Ctrl-C)." in notes
    assert "processor (Made-up Processor 1 against Another)" in notes
    assert "savedmodel (1.0 against 2.0)" in notes


def test_a_variants_metric_is_found_by_its_base_key(write):
    documents = [results(), results(p99=times(P99, 2))]
    for document in documents:
        for found in document["metrics"]:
            found["key"] = found["key"].replace("steady.", "steady[gRPC, 8 images].")
    paths = [write(name, document) for name, document in zip("ab", documents, strict=True)]
    assert base_key("steady[gRPC, 8 images].p99") == "steady.p99"
    assert "steady[gRPC, 8 images].p50" in findings(compare(*paths))
    assert findings(compare(*paths, keys=["steady.p99"])) == {"steady[gRPC, 8 images].p99": "regression"}


def test_a_metric_that_is_not_there_is_named_with_the_nearest(write):
    paths = write("old", results()), write("new", results())
    with pytest.raises(StudyError, match=r"--metric steady\.p95 is not in both runs; did you mean steady\.p9"):
        compare(*paths, keys=["steady.p95"])


def edited(key, value):
    document = results()
    document[key] = value
    return document


def with_runs(runs, **value):
    document = results()
    usual = {"value": None, "sd": None, "value_from": "runs"}
    document["metrics"][0]["values"]["savedmodel"] = {"runs": runs, **usual, **value}
    return document


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("", "is not JSON"),
        ('{"schema_version": 1, "id": "x"', "is not JSON"),
        ("[]", "is of version None"),
        (edited("schema_version", 99), "is of version 99"),
        (edited("metrics", "none"), "metrics: "),
        (edited("engines", None), "engines: "),
        (edited("study", {}), "study.plan: field required"),
        (with_runs(["fast"]), "metrics.0.values.savedmodel.runs.0: "),
        (with_runs([True, False]), "metrics.0.values.savedmodel.runs.0: "),
        (with_runs([math.nan, 1.0]), "is not JSON (NaN is no number)"),
        (with_runs([1e300, 2e300]), "metrics.0.values.savedmodel.runs.0: "),
        (with_runs([10.0, 12.0], value=7.0), "the value is 7, and that of its runs 11"),
        (with_runs([None], value=7.0), "the value is 7, and that of its runs none"),
        (with_runs([10.0, 12.0], value=11.0, sd=3.0), "the sd is 3, and that of its runs 1.41421"),
        (with_runs([10.0, 12.0], value=7.0, value_from="samples"), "the value is 7, and that of its runs 11"),
        (edited("metrics", [metric("steady.p50", P50)] * 2), "the metric steady.p50 is there twice"),
        (edited("metrics", []), "have no metric of an engine in common"),
        (edited("environment", {"cpu_model": "\ud800"}), "holds half a character"),
        (edited("study", {"plan": {"limits": 3}}), "study.plan.limits: "),
        (edited("study", {"plan": {"limits": {"cpus": "x"}}}), "study.plan.limits.cpus: "),
        (edited("study", {"plan": {"docker": 3}}), "study.plan.docker: "),
        (edited("study", {"plan": {"kubernetes": {"reach": 3}}}), "study.plan.kubernetes.reach: "),
        (edited("study", {"plan": {}, "cores": {"engine": 5}}), "study.cores.engine: "),
    ],
)
def test_a_broken_results_file_is_one_sentence_and_exit_code_2(write, capsys, document, told):
    arguments = parser().parse_args(["compare", str(write("old", results())), str(write("new", document))])
    assert guard(lambda: run(arguments)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert told in output.err
    assert len(output.err.splitlines()) == 1
    assert "a bug of ours" not in output.err


def test_results_of_the_build_before_are_refused_with_what_to_do(write):
    before = write("before", edited("schema_version", 2))
    with pytest.raises(StudyError) as error:
        compare(before, write("new", results()))
    assert str(error.value) == (
        f"{before / 'results.json'} is of version 2, this servestorm reads 4: write it again with `servestorm report "
        "RUN`, whose figures are defined anew, or run the study again."
    )


def test_the_numbers_shown_are_the_figures_and_the_difference_is_theirs(pair):
    found = pair(p99=times(P99, 1.2))
    (row,) = [row for row in found.rows if row.key == "steady.p99"]
    assert (row.old.value, row.new.value) == (pytest.approx(fmean(P99)), pytest.approx(1.2 * fmean(P99)))
    assert row.verdict.difference_percent == pytest.approx(100 * (row.new.value / row.old.value - 1))
    assert "| 30.2 ± 0.6 | 36.3 ± 0.7 | +20.0 % (" in markdown(found)


def test_a_percentile_of_all_samples_together_is_shown_and_not_compared(write):
    document = results(p99=[None] * 5)
    document["metrics"][1]["values"]["savedmodel"].update(value=29.9, value_from="samples")
    found = compare(write("old", document), write("new", results()))
    (row,) = [row for row in found.rows if row.key == "steady.p99"]
    assert (row.finding, row.verdict) == ("not compared", None)
    assert "| 29.9 (samples) | 30.2 ± 0.6 | – |" in markdown(found)


def test_units_that_changed_are_refused(write):
    document = results()
    document["metrics"][0]["unit"] = "s"
    with pytest.raises(StudyError, match=r"steady\.p50 is told in ms .* in OLD and s .* in NEW"):
        compare(write("old", results()), write("new", document))


def test_a_path_that_is_no_run_is_told_from_one_that_was_cut_short(write, tmp_path):
    old = write("old", results())
    with pytest.raises(StudyError, match="nowhere does not exist"):
        compare(old, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="empty is no run directory"):
        compare(old, tmp_path / "empty")
    (tmp_path / "empty" / "study.json").write_text("{}")
    with pytest.raises(StudyError, match="the study was cut short; write it with `servestorm report"):
        compare(old, tmp_path / "empty")


def test_junit_counts_a_case_for_each_metric_and_engine(pair):
    found = pair(p50=times(P50, 1.5), p99=[28.0, 40.0, 27.0, 41.0, 33.0], images_per_s=[None] * 5)
    suite = ElementTree.fromstring(junit(found)).find("testsuite")
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    failed = next(case for case in suite.iter("testcase") if case.find("failure") is not None)
    assert (failed.get("classname"), failed.get("name")) == ("servestorm.savedmodel", "steady.p50")
    assert "OLD is better" in failed.find("failure").get("message")


def test_junit_is_xml_whatever_the_names_are(write):
    document = results()
    document["metrics"][0]["key"] = 'steady.<p50>&"\x00'
    paths = write("old", document), write("new", document)
    found = compare(*paths, keys=['steady.<p50>&"\x00'])
    names = [case.get("name") for case in ElementTree.fromstring(junit(found)).iter("testcase")]
    assert names == ['steady.<p50>&"\ufffd']


def test_markdown_is_one_table_whatever_the_names_are(write):
    document = results()
    document["metrics"][0]["label"] = "a | b\n<script>"
    text = markdown(compare(write("old", document), write("new", document)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert {line.replace("\\|", "").count("|") for line in rows} == {8}
    assert "<script>" not in text.replace("\\<", "")


def test_the_verb_writes_what_is_asked_for_and_prints_a_table(write, tmp_path, capsys):
    paths = [str(write("old", results())), str(write("new", results(p99=times(P99, 2))))]
    files = [tmp_path / "out" / "junit.xml", tmp_path / "out" / "pr.md"]
    arguments = parser().parse_args(["compare", *paths, "--junit", str(files[0]), "--markdown", str(files[1])])
    assert guard(lambda: run(arguments)) == 1
    assert capsys.readouterr().out == files[1].read_text()
    assert "| **regression** |" in files[1].read_text()
    assert ElementTree.parse(files[0]).getroot().tag == "testsuites"


def test_a_file_that_cannot_be_written_is_named_with_its_option(write, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    paths = [str(write("old", results())), str(write("new", results()))]
    arguments = parser().parse_args(["compare", *paths, "--junit", str(tmp_path / "file" / "x.xml")])
    assert guard(lambda: run(arguments)) == 3
    assert "choose another place with --junit" in capsys.readouterr().err


@pytest.mark.parametrize("margin", ["-1", "nan", "much", "1e9"])
def test_a_margin_that_is_no_percentage_is_refused(margin, capsys):
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(["compare", "a", "b", f"--margin={margin}"])
    assert stopped.value.code == 2
    assert "--margin" in capsys.readouterr().err


def test_two_runs_are_independent_and_judged_by_the_ratio_of_their_means(pair):
    found = pair(p50=[12.0, 12.3, 11.8, 12.1, 12.2])
    (row,) = [row for row in found.rows if row.key == "steady.p50"]
    assert (row.verdict.paired, row.verdict.rounds) == (False, None)
    assert row.verdict.ratio == pytest.approx(row.new.value / row.old.value)
    own = verdict(P50, [12.0, 12.3, 11.8, 12.1, 12.2], "lower", names=("OLD", "NEW"))
    assert row.verdict.ratio_ci == own.ratio_ci


def test_an_inconclusive_interval_wider_than_a_factor_of_three_is_not_printed(pair):
    found = pair(p99=[10.0, 95.0, 31.0, 20.0, 30.0])
    (row,) = [row for row in found.rows if row.key == "steady.p99"]
    assert row.verdict.ratio_ci[1] > 3 * row.verdict.ratio_ci[0]
    assert "Inconclusive: the runs scatter too much to say; about " in row.reason
    (line,) = [line for line in markdown(found).splitlines() if line.startswith("| savedmodel | steady.p99")]
    assert f"| {signed(row.verdict.difference_percent)} | 1.00 |" in line


def test_runs_of_another_design_are_compared_and_noted(write):
    document = results()
    document["study"]["plan"].update(design="interleaved", budget="10 min")
    found = compare(write("old", results()), write("new", document))
    note = "OLD loaded its engines one after another and NEW in turns: a difference may be the design's."
    assert (found.differs, note in found.notes) == ([], True)
    again = write("again", document | {"id": "another"})
    assert not any("in turns" in text for text in compare(write("interleaved", document), again).notes)


def claim(runs, value):
    return {"runs": runs, "value": value, "sd": None, "value_from": "largest", "valid": True}


def test_a_claim_is_the_largest_of_its_runs_and_not_compared(write):
    documents = [results(p99_claim=[1.0, 2.0, 3.0]), results(p99_claim=[4.0, 5.0, 6.0])]
    for document, runs in zip(documents, ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]), strict=True):
        row = next(metric for metric in document["metrics"] if metric["key"] == "steady.p99_claim")
        row["values"]["savedmodel"] = claim(runs, max(runs))
    paths = [write(name, document) for name, document in zip(("old", "new"), documents, strict=True)]
    (row,) = compare(*paths, keys=["steady.p99_claim"]).rows
    assert (row.finding, row.verdict) == ("not compared", None)
    assert "compare the percentile itself" in row.reason


@pytest.mark.parametrize(("runs", "value"), [([1.0, 3.0], 2.0), ([1.0, None], 1.0)])
def test_a_claim_that_is_not_the_largest_of_its_runs_is_refused(write, runs, value):
    document = results(p99_claim=[1.0, 2.0])
    row = next(metric for metric in document["metrics"] if metric["key"] == "steady.p99_claim")
    row["values"]["savedmodel"] = claim(runs, value)
    with pytest.raises(StudyError, match="that of its runs"):
        compare(write("old", document), write("new", results()))
