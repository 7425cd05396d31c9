"""Figures from plain data: the drawing, its caption and table, and no figure where there is nothing to draw."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from servestorm.analysis.figures import Law, Setting
from servestorm.analysis.latency_split import Part, Parts
from servestorm.methods.capacity_estimate import Crossing
from servestorm.report.sections import bursts, capacity, cost, latency_split, runs, scaling_law, sweep, table, verdicts
from tests.stand_ins import figure_data
from tests.stand_ins.figure_data import ENGINES, cost_on, judgement, probe, search

NO_LAW = Law(points=[], lambda_=None, sigma=None, kappa=None, r2=None, peak_replicas=None, curve=[])


@pytest.fixture(scope="module")
def parts():
    return {part.id: part for part in figure_data.all_parts()}


def cells(part) -> str:
    return "\n".join(" | ".join(row) for row in part.table.rows)


def colours(part) -> set[str]:
    return set(re.findall(r"var\((--[a-z]+-?\d?)\)", part.drawing.wide))


def test_every_figure_is_drawn_in_both_widths_with_a_caption_and_a_table(parts):
    assert len(parts) == 8
    for part in parts.values():
        assert part.drawing.wide != part.drawing.narrow
        assert part.alt.startswith(part.table.title)
        assert len(part.caption) > 60
        assert {len(row) for row in part.table.rows} == {len(part.table.head)}


def test_no_two_figures_share_an_id_and_colours_are_the_pages(parts):
    drawings = [text for part in parts.values() for text in (part.drawing.wide, part.drawing.narrow)]
    ids = [name for text in drawings for name in set(re.findall(r'\bid="([^"]+)"', text))]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"#[0-9a-f]{6}", "".join(drawings))) <= {"#000000", "#ffffff"}


def test_missing_numbers_are_dashes_and_never_nan_or_none(parts):
    text = "".join(cells(part) + part.drawing.wide for part in parts.values())
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: capacity.part("x", ENGINES, {}, 50.0, {}),
        lambda: capacity.part("x", ENGINES, {engine: [] for engine in ENGINES}, 50.0, {}),
        lambda: scaling_law.part("x", ENGINES, {"savedmodel": NO_LAW}),
        lambda: sweep.part("x", ENGINES, {"savedmodel": [Setting("", images_per_s=1.0, p99_ms=None, front=False)]}),
        lambda: cost.part("x", ENGINES, {"savedmodel": []}, ""),
        lambda: runs.part("x", ENGINES, {"p99": {"savedmodel": [None, None]}}),
        lambda: latency_split.part("x", ENGINES, {"savedmodel": Parts(None, [Part("inference", None)], [])}),
        lambda: bursts.part("x", ENGINES, {"savedmodel": []}),
        lambda: verdicts.part("x", ENGINES, [], 5.0),
    ],
)
def test_where_there_is_nothing_to_draw_there_is_no_figure(draw):
    assert draw() is None


def test_a_probe_without_enough_answers_for_a_p99_is_drawn_and_listed():
    run = search([probe(100.0, "fail", None)], high=100.0, confirmed=False)
    part = capacity.part("x", ["savedmodel"], {"savedmodel": [run]}, None, {})
    assert part.table.rows == [
        ["savedmodel, search 1", "100", "–", "did not hold"],
        ["savedmodel, search 1: capacity", "–; 100 did not hold", "", "not confirmed"],
    ]


def test_a_rate_that_the_generator_could_not_offer_has_not_failed():
    probes = [probe(100.0, "pass", 9.0), probe(200.0, "invalid", 9.0)]
    run = search(probes, rate_per_s=100.0, low=100.0, high=200.0)
    text = cells(capacity.part("x", ["savedmodel"], {"savedmodel": [run]}, 50.0, {}))
    assert "savedmodel, search 1: capacity | 100; 200 could not be offered |  | confirmed" in text


def test_the_rate_at_which_p99_meets_the_objective_has_an_interval():
    met = Crossing(rate_per_s=104.0, low=98.0, high=111.0, probes=5)
    run = search([probe(100.0, "pass", 40.0)], rate_per_s=100.0, low=100.0, crossing=met)
    text = cells(capacity.part("x", ["savedmodel"], {"savedmodel": [run]}, 50.0, {}))
    assert "savedmodel, search 1: p99 meets the objective at | 104 (98.0 to 111) |  | estimated" in text


def test_the_law_is_listed_with_its_coefficients_and_one_engine_may_lack_it():
    data = figure_data.laws() | {"torchserve": replace(NO_LAW, points=[(1, 170.0)], means=[(1, 170.0)])}
    text = cells(scaling_law.part("x", ENGINES, data))
    assert "σ, contention | 0.08 | –" in text
    assert re.search(r"1 replica, mean \| \d+ \| 170", text)


def test_the_front_is_numbered_by_throughput_and_the_beaten_are_listed_too(parts):
    text = cells(parts["front"])
    numbers = [int(place) for place in re.findall(r"savedmodel.*front, (\d)", text)]
    rates = [float(r.replace(",", "")) for r in re.findall(r"savedmodel[^|]*\| ([\d,.]+) \|[^|]*\| front", text)]
    assert numbers == sorted(numbers) == [1, 2, 3, 4, 5]
    assert rates == sorted(rates)
    assert "beaten" in text
    assert "batch 64, 1 ms, 4 in flight | – | – | no number" in text


def test_the_line_of_a_capacity_bears_the_number_of_its_row(parts):
    assert "525 images/s" in parts["capacity"].drawing.wide
    assert "182 images/s" in parts["capacity"].drawing.narrow


def test_the_end_of_a_bar_and_the_total_are_the_mean_latency(parts):
    assert ">9.83 ms<" in parts["split"].drawing.wide  # a part under nothing is not drawn, and counted


def test_a_burst_without_a_recovery_is_marked_as_not_seen(parts):
    assert "not seen" in cells(parts["bursts"])


def test_a_part_under_nothing_stays_in_the_table_and_in_the_sum(parts):
    assert "not accounted for | 0.350 | -0.020" in cells(parts["split"])
    assert "total | 4.00 | 9.83" in cells(parts["split"])


NUMBERS = {"g": 1.5, "g_ci": (-0.2, 12.34), "smallest_effect_percent": 14.0, "p_holm": 0.012}


def test_a_machine_with_too_little_memory_is_named_and_so_is_memory_that_is_not_known():
    def rows(enough):
        return [cost_on("small", "P", 0.5, enough)]

    part = cost.part("x", ENGINES, {"savedmodel": rows(True), "torchserve": rows(False)}, "")
    assert cells(part) == "small, P | 0.500 | 0.500 (too little memory)"
    assert "do not fit (too little memory): TorchServe on small; these prices do not apply" in part.caption
    part = cost.part("x", ENGINES, {"savedmodel": rows(True), "torchserve": rows(None)}, "")
    assert "The peak memory of TorchServe is unknown." in part.caption
    part = cost.part("x", ENGINES, {"savedmodel": rows(True), "torchserve": rows(True)}, "")
    assert "the servers that fill the vCPUs fit into every instance" in part.caption


def test_only_a_winner_gives_its_colour_to_a_verdict():
    row = NUMBERS | {"difference_percent": 3.0, "ci_percent": (1.0, 4.0), "ratio": 1.03, "ratio_ci": (1.01, 1.04)}
    shown = {
        o: verdicts.part("x", ENGINES, [judgement("p50", **row, outcome=o)], 5.0) for o in ("A", "B", "equivalent")
    }
    drawn = {outcome: colours(part) for outcome, part in shown.items()}
    assert {outcome: {c for c in used if "engine" in c} for outcome, used in drawn.items()} == {
        "A": {"--engine-0"},
        "B": {"--engine-1"},
        "equivalent": set(),
    }
    text = cells(shown["B"])
    numbers = "× 1.03 | 1.01 to 1.04 | 3 and 3 | +1.50 | -0.20 to +12.3 | 14.0 % | 0.012"
    assert text == f"p50: TorchServe against savedmodel | {numbers} | TorchServe is better"


def test_a_verdict_without_numbers_is_a_row_of_its_own(parts):
    dashes = "– | – | 3 and 3 | – | – | – | –"
    assert f"scaling, 4 replicas: TorchServe against savedmodel | {dashes} | inconclusive" in cells(parts["forest"])


def test_a_figure_that_can_be_0_keeps_its_difference_in_percent(parts):
    assert "failed answers: TorchServe against savedmodel | +0.40 % | −1.1 % to +1.9 % | " in cells(parts["forest"])


def test_an_inconclusive_interval_wider_than_a_factor_of_3_is_neither_listed_nor_drawn(parts):
    part = verdicts.part("x", ENGINES, [figure_data.scattered("p50")], 5.0)
    assert cells(part) == (
        "p50: TorchServe against savedmodel | – | – | 3 and 3 | +0.80 | – | 350 % | 0.60 | inconclusive"
    )
    assert "runs scatter too much to say" in part.drawing.wide
    assert not re.search(r"× (0\.5|4)", part.drawing.wide), "no axis is stretched to an interval that is not shown"
    close = figure_data.scattered("p50", ratio_ci=(0.8, 2.3), ci_percent=(-20.0, 130.0))
    assert "× 1.65 | 0.80 to 2.30 | " in cells(verdicts.part("x", ENGINES, [close], 5.0))
    decided = replace(close, verdict=replace(close.verdict, outcome="A", ratio_ci=(1.1, 4.48)))
    assert "× 1.65 | 1.10 to 4.48 | " in cells(verdicts.part("x", ENGINES, [decided], 5.0))


def test_a_paired_verdict_names_its_rounds_and_an_early_look_its_confidence():
    row = NUMBERS | {"difference_percent": 3.0, "ci_percent": (1.0, 4.0), "ratio": 1.03, "ratio_ci": (1.01, 1.04)}
    early = judgement("p50", **row, outcome="A", paired=True, rounds=4, confidence=0.9918)
    assert "× 1.03 | 1.01 to 1.04 (99.2 %) | 4 rounds, paired | " in cells(verdicts.part("x", ENGINES, [early], 5.0))


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_a_question_with_a_long_name_leaves_room_for_its_interval():
    long = "Cold start (cold page cache): process start to first right answer, model with a long name, gRPC"
    row = NUMBERS | {"difference_percent": 30.0, "ci_percent": (-90.0, 900.0)}
    assert verdicts.part("x", ENGINES, [judgement(long, **row, outcome="inconclusive")] * 3, 5.0)


def test_three_engines_and_one_fit():
    three = ["savedmodel", "torchserve", "tfserving"]
    rows = [replace(row, b=b) for row in figure_data.verdict_rows() for b in three[1:]]
    assert "TensorFlow Serving against savedmodel" in cells(verdicts.part("x", three, rows, 5.0))
    assert len(figure_data.all_parts(three)) == 8


def test_every_file_of_a_section_stands_in_the_table_once():
    files = {path.stem for path in Path(table.__file__).parent.glob("*.py")} - {"__init__", "table"}
    assert sorted(make.__module__.rpartition(".")[2] for make in table.SECTIONS) == sorted(files)
