"""The first line of a report is its verdict: who is better at what, by how much, what is open, why, and what to do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from servestorm.analysis.judgements import Judgement
from servestorm.analysis.metric import Metric, Value
from servestorm.analysis.results import Results, compute
from servestorm.methods.disturbance import Disturbance
from servestorm.plan.scenarios import Capacity
from servestorm.report.headline import first_line
from servestorm.report.html_page import render
from servestorm.report.markdown import markdown
from servestorm.report.page import page_of
from servestorm.report.terminal import print_results
from servestorm.rundir.record import read_run
from tests.stand_ins.figure_data import judgement, scattered
from tests.stand_ins.synthetic_run import PLAN, make_run

THREE = ["savedmodel", "torchserve", "tfserving"]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    return compute(read_run(make_run(tmp_path_factory.mktemp("runs"))))


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Results:
    plan = PLAN.replace("[savedmodel, torchserve]", f"[{', '.join(THREE)}]")
    return compute(read_run(make_run(tmp_path_factory.mktemp("runs"), plan)))


def decided(metric: str, ratio: float, low: float, high: float, outcome: str = "A", **pair: str) -> Judgement:
    """A verdict whose `ratio` is the second engine's figure by the first's."""
    percents = {"difference_percent": 100 * (ratio - 1), "ci_percent": (100 * (low - 1), 100 * (high - 1))}
    judged = judgement(metric, outcome=outcome, p=0.001, ratio=ratio, ratio_ci=(low, high), **percents)
    return replace(judged, **pair)


def told(results: Results, *verdicts: Judgement) -> list[str]:
    first = first_line(replace(results, verdicts=list(verdicts)))
    return [first.verdict, *first.further]


P50 = decided("steady.p50", 1.62, 1.55, 1.70)
CPU = decided("steady.cpu_ms_per_image", 2.08, 2.0, 2.17)
START = decided("coldstart.total_s", 1.4, 1.31, 1.49)


def test_it_says_who_is_better_at_what_and_by_how_much(results):
    assert told(results, P50, CPU, START) == [
        "savedmodel answers 1.62 times as fast as TorchServe under steady load (p50; 1.55 to 1.70), uses 0.48 times "
        "the CPU time an image (0.46 to 0.50), and starts 1.40 times as fast (1.31 to 1.49)."
    ]


def test_the_better_engine_comes_first_and_what_the_other_is_better_at_follows(results):
    other = [
        decided(j.metric, 1 / j.verdict.ratio, *(1 / end for end in j.verdict.ratio_ci[::-1]), "B") for j in (P50, CPU)
    ]
    assert told(results, *other, START) == [
        "TorchServe answers 1.62 times as fast as savedmodel under steady load (p50; 1.55 to 1.70) and uses 0.48 times "
        "the CPU time an image (0.46 to 0.50).",
        "savedmodel starts 1.40 times as fast as TorchServe (1.31 to 1.49).",
    ]


def test_the_tail_is_told_beside_the_median(results):
    p99 = decided("steady.p99", 2.5, 2.1, 3.0)
    assert "(p50; 1.55 to 1.70) and is 2.50 times as fast at the p99 (2.10 to 3.00)." in told(results, P50, p99)[0]
    (alone,) = told(results, p99)
    assert alone == "savedmodel is 2.50 times as fast as TorchServe at the p99 under steady load (2.10 to 3.00)."


def test_bursty_load_is_told_where_steady_load_has_no_answer_or_another_one(results):
    bursty = decided("bursty.p50", 1.9, 1.8, 2.0)
    assert "bursty" not in told(results, P50, bursty)[0]
    assert "in bursty load (p50; 1.80 to 2.00)" in told(results, scattered("steady.p50"), bursty)[0]
    assert "TorchServe answers 2.00 times as fast as savedmodel in bursty load" in " ".join(
        told(results, P50, decided("bursty.p50", 0.5, 0.45, 0.55, "B"))
    )


def test_equivalent_engines_are_called_so(results):
    same = decided("steady.cpu_ms_per_image", 1.01, 0.99, 1.03, "equivalent")
    text = "savedmodel and TorchServe are equivalent in CPU time an image: they differ by less than 5 %."
    assert told(results, P50, same)[1:] == [text]
    assert told(results, same) == [text]


def test_runs_that_scatter_too_much_give_no_interval_and_say_how_much_more_would_tell(results):
    verdicts = [scattered("steady.p50"), scattered("steady.p99", runs_more=14, minutes_more=6.2)]
    assert told(results, *verdicts) == [
        "No answer on p50 under steady load and p99 under steady load: the runs scatter too much to say; about 14 more "
        "runs of each (about 6 minutes) would tell."
    ]


def test_no_interval_wider_than_a_factor_of_3_stands_anywhere_where_there_is_no_verdict(results, capsys):
    wide = scattered(
        "steady.p50", reason="Inconclusive: the runs scatter too much to say; about 9 more runs would tell."
    )
    results = replace(results, verdicts=[wide])
    page = page_of(results)
    print_results(results)
    texts = [markdown(page), re.sub(r"<svg.*?</svg>", "", render(page), flags=re.DOTALL), capsys.readouterr().out]
    for text in texts:
        assert "the runs scatter too much to say" in text
        assert not re.search(r"348|4\\.48|0\\.57 to|−43", text)


def test_an_open_question_with_a_useful_interval_is_told_with_it(results):
    near = decided("steady.p50", 1.04, 0.97, 1.12, "inconclusive")
    near = replace(near, verdict=replace(near.verdict, runs_more=6, paired=True, minutes_more=4.1))
    assert told(results, near) == [
        "No answer on p50 under steady load: TorchServe's is 0.97 to 1.12 times savedmodel's; about 6 more rounds "
        "(about 4 minutes) would tell."
    ]
    chance = decided("steady.p50", 1.5, 1.1, 2.0, "inconclusive")
    chance = replace(chance, verdict=replace(chance.verdict, runs_more=1))
    assert (
        "with so many comparisons that may be chance, about 1 more run of each would tell" in told(results, chance)[0]
    )
    far = replace(near, verdict=replace(near.verdict, runs_more=None, minutes_more=None))
    assert told(results, far)[0].endswith("would not tell, so use a quieter machine or longer runs.")


def changed(results: Results, key: str, engine: str, **fields) -> Results:
    """The results with another value of one engine in one row."""
    metrics = [
        replace(m, values={**m.values, engine: replace(m.values[engine], **fields)}) if m.key == key else m
        for m in results.metrics
    ]
    return replace(results, metrics=metrics)


OPEN = judgement("steady.p99", outcome="inconclusive")


def test_disturbed_runs_are_the_reason_and_the_remedy_is_another_machine(results):
    gone = Disturbance("other_load", 74.0, 25.0, "other programs used 74 % of the study's cores")
    found = changed(results, "steady.p99", "torchserve", disturbed=gone)
    assert told(found, replace(OPEN, withheld="disturbed")) == [
        "No answer on p99 under steady load: no run of TorchServe was undisturbed (other programs used 74 % of the "
        "study's cores); run the study on a machine that does less else."
    ]


def test_invalid_runs_are_the_reason(results):
    runs = [
        replace(run, valid=False, reasons=["12 arrivals were dropped: too many were in flight."])
        if (run.group, run.engine) == ("steady", "torchserve")
        else run
        for run in results.runs
    ]
    found = replace(changed(results, "steady.p99", "torchserve", valid=False), runs=runs)
    assert told(found, OPEN) == [
        "No answer on p99 under steady load: no run of TorchServe is VALID (12 arrivals were dropped: too many were in "
        "flight); the table under Validity has the reasons."
    ]


def test_a_percentile_with_too_few_answers_says_how_long_a_load_must_be(results):
    found = changed(results, "steady.p99", "torchserve", runs=[None, None, None])
    assert told(found, OPEN) == [
        "No answer on p99 under steady load: a run of TorchServe has too few answers for it; load each run for at "
        "least 9 s."
    ]


def test_figures_that_are_invalid_because_the_generator_was_late_are_the_reason(results):
    runs = [
        replace(run, invalid_figures={"p99": "late"}) if (run.group, run.engine) == ("steady", "torchserve") else run
        for run in results.runs
    ]
    found = replace(changed(results, "steady.p99", "torchserve", runs=[None, None, None]), runs=runs)
    assert told(found, OPEN) == [
        "No answer on p99 under steady load: the load generator sent too late for this figure in runs of TorchServe; "
        "give the generator a core of its own, or use a quieter machine."
    ]


def test_one_run_is_no_answer(results):
    found = changed(results, "steady.p99", "torchserve", runs=[9.1])
    assert told(found, OPEN) == [
        "No answer on p99 under steady load: fewer than two runs of TorchServe have this figure; at least two of each "
        "are needed, so raise repetitions or budget in the plan."
    ]


def test_of_three_engines_the_best_one_comes_first_with_both_that_it_beats(three):
    verdicts = [
        P50,
        decided("steady.p50", 0.625, 0.6, 0.65, "B", b="tfserving"),
        decided("steady.p50", 0.4, 0.38, 0.42, "B", a="torchserve", b="tfserving"),
        CPU,
    ]
    assert told(three, *verdicts) == [
        "TensorFlow Serving answers 1.60 times as fast as savedmodel (1.54 to 1.67) and 2.50 times as fast as "
        "TorchServe (2.38 to 2.63) under steady load (p50).",
        "savedmodel answers 1.62 times as fast as TorchServe under steady load (p50; 1.55 to 1.70) and uses 0.48 times "
        "the CPU time an image (0.46 to 0.50).",
    ]


def test_of_three_engines_an_open_question_names_the_pairs_that_are_open(three):
    pairs = [("savedmodel", "torchserve"), ("savedmodel", "tfserving"), ("torchserve", "tfserving")]
    every = [replace(scattered("steady.p99"), a=a, b=b) for a, b in pairs]
    assert told(three, *every)[0].startswith("No answer on p99 under steady load: the runs scatter too much to say;")
    assert told(three, *every[1:])[0].startswith(
        "No answer on p99 under steady load between savedmodel and TensorFlow Serving and between TorchServe and "
        "TensorFlow Serving: the runs scatter"
    )


def test_savedmodel_is_never_called_tensorflow_serving(results):
    assert "TensorFlow" not in " ".join(told(results, P50, CPU, START, OPEN))


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> Results:
    plan = PLAN.replace("repetitions: 3", "repetitions: 3\nprotocol: [rest, grpc]")
    return compute(read_run(make_run(tmp_path_factory.mktemp("runs"), plan)))


def test_several_variants_are_told_by_the_span_of_their_ratios(variants):
    rest, grpc = (metric.key for metric in variants.rows("steady", "p50"))
    first, second = decided(rest, 1.9, 1.8, 2.0), decided(grpc, 1.4, 1.3, 1.5)
    assert told(variants, first, second) == [
        "savedmodel answers 1.40 to 1.90 times as fast as TorchServe under steady load (p50, in each of 2 variants)."
    ]
    assert told(variants, first, scattered(grpc))[0] == (
        "savedmodel answers 1.90 times as fast as TorchServe under steady load (p50, in 1 of 2 variants; 1.80 to 2.00)."
    )


def promising(results: Results, **rates: float | None) -> Results:
    values = {
        engine: Value(rate, None, int(rate is not None), [rate], value_from="runs") for engine, rate in rates.items()
    }
    row = Metric("capacity.images_per_s", "capacity", "capacity", "largest rate", "images/s", "higher", "", values, {})
    plan = results.study.plan.model_copy(update={"capacity": Capacity(p99_ms=50)})
    study = results.study.model_copy(update={"plan": plan})
    return replace(
        results, study=study, metrics=[*results.metrics, row], groups=results.groups | {"capacity": "Capacity"}
    )


def test_the_rate_to_promise_under_the_objective_follows_the_verdict(results):
    found = promising(results, savedmodel=359.0, torchserve=126.0)
    assert told(found, P50)[1:] == [
        "Promise at most 359 images/s on savedmodel and 126 images/s on TorchServe, to keep the p99 within 50 ms."
    ]
    found = promising(results, savedmodel=None, torchserve=126.0)
    assert told(found, P50)[1:] == [
        "Promise at most 126 images/s on TorchServe, to keep the p99 within 50 ms; no search of savedmodel that counts "
        "has such a rate."
    ]
    found = promising(results, savedmodel=None, torchserve=None)
    assert told(found, P50)[1].startswith("No rate to promise: no search of savedmodel and TorchServe that counts")


def test_one_engine_alone_is_told_by_its_figures(tmp_path):
    results = compute(read_run(make_run(tmp_path, PLAN.replace("[savedmodel, torchserve]", "[torchserve]"))))
    pattern = (
        r"TorchServe answers in 1\d\.\d ms \(p50\) and \d\d\.\d ms \(p99\) under steady load and starts in \d\.\d\d s\."
    )
    assert re.fullmatch(pattern, first_line(results).verdict)


def test_a_study_without_a_run_that_counts_says_so(results):
    empty = replace(results, engines=["torchserve"], verdicts=[], metrics=[], runs=[])
    assert first_line(empty).verdict == (
        "No answer: no run of the study counts; the table under Validity has the reasons."
    )


def test_page_markdown_and_terminal_open_with_it(results, capsys):
    results = replace(results, verdicts=[P50, scattered("steady.p99")])
    verdict, open_ = told(results, *results.verdicts)
    page = page_of(results)
    assert markdown(page).splitlines()[:3] == [f"# {verdict}", "", open_]
    html = render(page)
    assert f"<h1>{verdict}</h1>" in html
    assert html.index("<h1>") < html.index(f"<li>{open_}</li>") < html.index('<section id="summary"')
    print_results(results)
    assert capsys.readouterr().out.splitlines()[:2] == [verdict, open_]
