"""report.html: self-contained, complete for readers without eyes, and honest in its labels."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from servestorm.plan.labels import number, p_text
from servestorm.report.write import write_report
from tests.stand_ins.synthetic_run import PLAN, make_run

BROWSER = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Counts what the tests ask about, and complains about tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.ids, self.links, self.faults, self._open = [], [], [], [], []
        self.text = text
        self.feed(text)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, attrs)

    def handle_starttag(self, tag, attrs):
        self._note(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def _note(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                self.links.append(value)

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.faults.append(tag)

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(run):
    """What was written into the run's folder."""
    results, _ = write_report(run)
    return results


@pytest.fixture(scope="module")
def page(run, results):
    return Page((run / "report.html").read_text())


def test_tags_nest_and_ids_are_unique(page):
    assert page.faults == []
    assert len(page.ids) == len(set(page.ids))


def test_the_environment_says_how_accurate_the_served_network_is(page):
    text = html.unescape(page.text)
    assert "97.8 % top-1 on 359 held-out images" in text
    for engine in ("savedmodel", "TorchServe"):
        told = (
            rf"Accuracy under load, {engine}.*?97\.8 % top-1 \(95 % interval 95\.7 to 98\.9\): all of [\d,]+000 answers"
        )
        assert re.search(told, text, re.DOTALL)


def test_nothing_is_fetched_from_anywhere(page):
    assert page.count("script") == 0
    outside = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert outside == []
    assert not re.search(r"@import|url\((?!#)", page.text)


def test_links_within_the_page_lead_somewhere(page):
    targets = {link[1:] for link in page.links if link.startswith("#")}
    assert targets <= set(page.ids)


@pytest.mark.usefixtures("results")
def test_it_is_small_enough_to_mail(run):
    assert (run / "report.html").stat().st_size < 1_000_000


def test_every_figure_has_words_and_a_table(page):
    drawings = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert len(drawings) == page.count("figure") == page.count("figcaption") == page.count("details") == 11
    assert all(len(attrs["aria-label"]) > 40 for attrs in drawings)


def test_it_has_landmarks_and_one_first_heading(page):
    assert [page.count(tag) for tag in ("h1", "main", "header", "footer", "nav")] == [1] * 5
    assert page.count("caption") == page.count("table")


def test_colours_follow_the_page_and_not_the_drawing(page):
    svgs = "".join(re.findall(r"<svg.*?</svg>", page.text, re.DOTALL))
    assert "var(--engine-0)" in svgs
    assert set(re.findall(r"#[0-9a-f]{6}", svgs)) <= {"#000000", "#ffffff"}


def test_the_embedded_server_is_labelled_and_never_passes_for_tensorflow_serving(page):
    assert "(embedded, not TensorFlow Serving)" in page.text
    visible = re.sub(r"not TensorFlow Serving", "", page.text)
    assert "TensorFlow Serving" not in visible


def test_the_numbers_of_the_page_are_those_of_the_table(results, page):
    value = results.metric("steady.p50").values["torchserve"].value
    assert f"{value:.1f}" in page.text


def test_every_percentile_stands_with_its_interval_on_the_page_and_in_its_twin(run, results, page):
    twin = (run / "report.md").read_text()
    for name in ("p50", "p90", "p95"):
        for value in results.metric(f"steady.{name}").values.values():
            low, high = value.ci
            assert (value.ci_from, low < high) == ("runs", True)
            interval = f"{number(low)} to {number(high)}"
            assert f'<span class="ci">{interval}</span>' in page.text
            assert f"[{interval}]" in unescaped(twin)


def unescaped(text):
    return text.replace("\\", "")


def test_a_percentile_of_one_run_has_the_interval_of_its_samples_and_says_so(tmp_path):
    run = make_run(tmp_path)
    for folder in (run / "cells").glob("*-steady-*-[23]"):
        shutil.rmtree(folder)
    results, path = write_report(run)
    value = results.metric("steady.p50").values["savedmodel"]
    low, high = value.ci
    assert (value.ci_from, value.n) == ("samples", 1)
    assert low < value.value < high
    interval = f"{number(low)} to {number(high)} (samples)"
    assert f'<span class="ci">{interval}</span>' in path.read_text()
    assert f"[{interval}]" in unescaped((run / "report.md").read_text())
    mean = results.metric("steady.mean_ms").values["savedmodel"]
    assert (mean.ci, mean.ci_from) == (None, None)


def test_every_verdict_says_its_effect_the_smallest_that_could_be_seen_and_holms_p(run, results, page):
    twin = unescaped((run / "report.md").read_text())
    assert "<details open>" in page.text
    judged = [judged.verdict for judged in results.verdicts if judged.verdict.g is not None]
    assert judged
    for verdict in judged:
        cells = {
            "Hedges' g": effect(verdict.g),
            "95 % interval of g": " to ".join(map(effect, verdict.g_ci)),
            "Smallest effect": number(verdict.smallest_effect_percent, "%"),
            "Holm p": p_text(verdict.p_holm),
        }
        for head, text in cells.items():
            assert f'data-head="{html.escape(head)}">{html.escape(text)}</td>'.replace("&#x27;", "&#39;") in page.text
        assert f"| {' | '.join(cells.values())} |" in twin


def effect(g):
    return f"{g:+.2f}" if abs(g) < 10 else f"{g:+,.1f}"


@pytest.mark.usefixtures("results")
def test_drawing_again_gives_the_same_page(run):
    before = (run / "report.html").read_bytes()
    write_report(run)
    assert (run / "report.html").read_bytes() == before


def test_what_is_not_proved_equal_says_so_on_the_page(tmp_path):
    _, path = write_report(make_run(tmp_path, parity="NOT PROVED EQUAL"))
    assert path.read_text().count("NOT PROVED EQUAL") >= 3


def test_numbers_of_invalid_runs_alone_are_marked_wherever_they_stand(tmp_path):
    run = make_run(tmp_path)
    for folder in (run / "cells").glob("*-steady-torchserve-*"):
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "valid": False}))
    results, path = write_report(run)
    rows = [m for m in results.metrics if m.scenario == "steady" and m.values["torchserve"].value is not None]
    cards = 2  # median and p99
    assert path.read_text().count('<span class="badge bad">INVALID</span>') == len(rows) + cards + 3


@pytest.mark.parametrize("gone", ["cells", "steady", "coldstart", "scaling"])
def test_a_run_that_lacks_something_still_has_a_report(tmp_path, gone):
    run = make_run(tmp_path)
    for folder in (run / "cells").iterdir():
        if gone == "cells" or gone in folder.name:
            shutil.rmtree(folder)
    _, path = write_report(run)
    assert Page(path.read_text()).faults == []
    assert ">nan<" not in path.read_text()
    assert ">None<" not in path.read_text()


@pytest.mark.parametrize("engines", ["[torchserve]", "[savedmodel, torchserve, tfserving]"])
def test_one_engine_or_three_fit(tmp_path, engines):
    _, path = write_report(make_run(tmp_path, PLAN.replace("[savedmodel, torchserve]", engines)))
    assert Page(path.read_text()).faults == []


def test_names_are_escaped(tmp_path):
    run = make_run(tmp_path)
    manifest = run / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"digits"', '"<script>alert(1)</script>"'))
    _, path = write_report(run)
    assert "<script>" not in path.read_text()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.usefixtures("results")
def test_a_browser_has_nothing_to_complain_about(run, tmp_path):
    done = subprocess.run(
        [*BROWSER, f"--user-data-dir={tmp_path}", (run / "report.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    assert "Percentile spectrum" in done.stdout
