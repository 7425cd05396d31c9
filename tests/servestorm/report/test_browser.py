"""report.html in headless Chromium: nothing to complain about, every plot drawn, readable and reachable for everybody.

axe-core (the accessibility engine behind Lighthouse) comes through npm into a temporary folder; AXE_CORE may name an
axe.min.js that is there already.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from servestorm.analysis.results import compute
from servestorm.report.html_page import render
from servestorm.report.page import page_of
from servestorm.report.part import Section
from servestorm.rundir.record import read_run
from tests.requirements_here import lacking
from tests.servestorm.report.browser import CHROMIUM, Browser
from tests.stand_ins.figure_data import all_parts
from tests.stand_ins.synthetic_run import make_run

AXE = Path(__file__).with_name("axe")
"""What npm installs, by its lock: one version, with its integrity."""
PLOTS = 11 + 8
"""Of the run, and of the made-up data."""
SCHEMES = [
    pytest.param({"width": 1100}, id="light"),
    pytest.param({"width": 1100, "dark": True}, id="dark"),
    pytest.param({"width": 390}, id="phone"),
    pytest.param({"width": 390, "dark": True}, id="phone-dark"),
]
UNDRAWN = """
[...document.querySelectorAll('.drawing')].filter(drawing => {
  const svg = [...drawing.querySelectorAll('svg')].find(svg => svg.getBoundingClientRect().height > 60);
  return !svg || svg.querySelectorAll('path').length < 10 || svg.querySelectorAll('text').length < 2;
}).map(drawing => drawing.getAttribute('aria-label'))
"""
CUT = """
[...document.querySelectorAll('.drawing svg')].filter(svg => svg.getBoundingClientRect().height).flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 4 || box.right > frame.right + 4;
  }).map(text => text.textContent);
})
"""
FOCUSED = """
(() => { const at = document.activeElement, box = at.getBoundingClientRect();
  return {tag: at.tagName, text: (at.getAttribute('aria-label') || at.textContent).trim().slice(0, 60),
          seen: getComputedStyle(at).outlineStyle !== 'none' && box.width > 0}; })()
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A run's page, and on it every other kind of figure."""
    folder = tmp_path_factory.mktemp("runs")
    whole = page_of(compute(read_run(make_run(folder))))
    more = [Section(f"more-{part.id}", f"More: {part.id}", [part]) for part in all_parts()]
    path = folder / "report.html"
    path.write_text(render(replace(whole, sections=[*whole.sections, *more])))
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        lacking("chromium", "chromium is not installed")
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    if named := os.environ.get("AXE_CORE"):
        return Path(named).read_text()
    if shutil.which("npm") is None:
        lacking("axe", "npm is not installed, and axe-core comes through it")
    folder = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(AXE / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert "EINTEGRITY" not in done.stderr, done.stderr
    if done.returncode:
        lacking("axe", f"npm has no axe-core for us: {done.stderr.strip().splitlines()[-1:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.mark.parametrize("view", SCHEMES)
def test_axe_finds_no_violation(page, browser, axe, view):
    browser.open(page, **view)
    browser.ask("document.querySelectorAll('details').forEach(details => details.open = true)")
    browser.ask(axe + "; 0")
    result = browser.ask(
        "axe.run(document).then(r => ({passed: r.passes.map(p => p.id),"
        " bad: r.violations.map(v => [v.id, v.help, v.nodes.map(n => n.html + n.failureSummary)])}))"
    )
    assert result["bad"] == [], json.dumps(result["bad"], indent=1)
    assert {"color-contrast", "landmark-one-main", "empty-table-header"} <= set(result["passed"])


@pytest.mark.parametrize("view", SCHEMES)
def test_every_plot_is_drawn_and_no_word_of_it_is_cut_off(page, browser, view):
    browser.open(page, **view)
    assert browser.ask("document.querySelectorAll('.drawing').length") == PLOTS
    assert browser.ask(UNDRAWN) == []
    assert browser.ask(CUT) == []


@pytest.mark.parametrize("view", SCHEMES)
def test_lines_and_bars_stand_out_from_the_paper(page, browser, view):
    """WCAG 1.4.11 asks for 3:1 of what one must see to understand a figure; axe-core does not look into drawings."""
    browser.open(page, **view)
    names = [f"--engine-{i}" for i in range(3)] + [f"--part-{i}" for i in range(8)] + ["--muted", "--ink"]
    for name in names:
        assert contrast(*(browser.ask(COLOUR % variable) for variable in (name, "--paper"))) >= 3, name
    # numbers are written in the paper's colour onto the parts
    for name in names[3:11]:
        assert contrast(*(browser.ask(COLOUR % variable) for variable in (name, "--paper"))) >= 4.5, name


COLOUR = """
(() => { const probe = document.body.appendChild(document.createElement('i')); probe.style.color = 'var(%s)';
  const colour = getComputedStyle(probe).color; probe.remove(); return colour.match(/\\d+/g).map(Number); })()
"""


def contrast(one: list[int], other: list[int]) -> float:
    """Contrast ratio of two sRGB colours (WCAG 2.2)."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: list[int]) -> float:
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("width", [1100, 390])
def test_nothing_is_wider_than_the_screen(page, browser, width):
    browser.open(page, width=width)
    assert browser.ask("document.documentElement.scrollWidth") <= width


def test_everything_is_reached_with_the_tab_key_and_seen_to_be(page, browser):
    browser.open(page)
    wanted = browser.ask("document.querySelectorAll('a[href], summary, [tabindex=\"0\"]').length")
    hidden = browser.ask("document.querySelectorAll('details:not([open]) [tabindex=\"0\"]').length")
    stops = []
    for _ in range(wanted - hidden):
        browser.tab()
        stops.append(browser.ask(FOCUSED))
    assert [stop for stop in stops if not stop["seen"]] == []
    assert stops[0]["text"] == "Skip to the summary"
    assert sum(stop["tag"] == "SUMMARY" for stop in stops) == PLOTS
    assert sum(stop["tag"] == "DIV" for stop in stops) == 3 + 2, "tables that scroll, and the verdicts' open ones"


def test_a_key_opens_the_numbers_of_a_figure(page, browser):
    browser.open(page)
    browser.ask("document.querySelector('details:not([open]) summary').focus()")
    browser.press_enter()
    assert browser.ask("document.activeElement.parentElement.open") is True


def test_on_paper_the_colours_are_the_light_ones_and_navigation_is_gone(page, browser):
    browser.open(page, dark=True, media="print")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.ask(UNDRAWN) == []


def test_the_console_stays_empty(page, browser):
    browser.complaints.clear()
    browser.open(page)
    assert browser.complaints == []
