"""Every command that the documentation names exists: verbs, options, make targets, benchmark programs."""

from __future__ import annotations

import argparse
import re
from itertools import pairwise
from pathlib import Path

import pytest

from servestorm.cli.main import parser
from tests.source_tree import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "examples" not in page.parts),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LEFT_TO_LOCUST = ("load",)
"""Verbs that pass their options on."""


def code(page: Path) -> str:
    """The fenced blocks and the spans between backticks of a page, one piece a line."""
    text = page.read_text()
    fences = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return "\n".join([*fences, *spans])


def verbs() -> dict[str, set[str]]:
    """Each verb of the command line with its options."""
    (action,) = (part for part in parser()._actions if isinstance(part, argparse._SubParsersAction))
    return {name: set(verb._option_string_actions) for name, verb in action.choices.items()}


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(verb, options) of each `servestorm VERB ...`; a comment or the next command of the line ends it."""
    found = re.findall(r"(?m)(?:^|[&|;] )\s*(?:\.venv/bin/)?servestorm ([a-z]+)\b([^\n#|&;]*)", text)
    return [(verb, re.findall(r"(?<!\S)(--[a-z-]+)", rest)) for verb, rest in found]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_servestorm_command_has_its_verb_and_its_options(page):
    known = verbs()
    named = commands(code(page))
    assert [verb for verb, _ in named if verb not in known] == []
    assert [(v, o) for v, options in named if v not in LEFT_TO_LOCUST for o in options if o not in known[v]] == []


def test_the_tutorial_names_the_commands_that_it_is_made_of():
    named = {verb for verb, _ in commands(code(ROOT / "docs" / "tutorial" / "first-study.md"))}
    assert named >= {"doctor", "report", "run", "compare"}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_make_target_and_every_program_of_the_tree_exists(page):
    text = code(page)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert [name for name in re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", text) if name not in targets] == []
    programs = re.findall(r"(?<![\w/])(?:python |-f )?((?:benchmarks|loadtests|studies)/[\w/.-]+\.(?:py|yaml))", text)
    assert [name for name in programs if not (ROOT / name).is_file()] == []


def test_commands_are_read_up_to_a_comment_or_another_command():
    text = "servestorm run PLAN --dry-run   # --no-such\n.venv/bin/servestorm train && servestorm export --name x"
    assert commands(text) == [("run", ["--dry-run"]), ("train", []), ("export", ["--name"])]


def test_every_change_that_a_page_makes_to_a_plan_finds_its_place():
    """A sed that finds nothing changes nothing, and says nothing."""
    plan = (ROOT / "studies" / "quickstart.yaml").read_text()
    edits = [edit for page in PAGES for edit in re.findall(r"sed -i 's/\^?([^/]+)/[^/]+/' \S*\.yaml", code(page))]
    assert edits
    assert [edit for edit in edits if not re.search(f"^{edit}", plan, re.MULTILINE)] == []


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial/first-study.md"])
def test_a_page_for_a_newcomer_puts_the_programs_on_the_path_before_it_types_them(page):
    fences = re.findall(r"^```\w*\n(.*?)^```", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    typed = [line.split()[0] for fence in fences for line in fence.splitlines() if line.strip()]
    programs = [place for place, word in enumerate(typed) if word in ("servestorm", "locust")]
    assert "." in typed and typed.index(".") < programs[0]


def test_a_server_in_the_background_is_waited_for_before_it_is_loaded():
    for page in PAGES:
        for fence in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
            for served, following in pairwise(fence.splitlines()):
                if re.search(r"servestorm serve .*&(?:\s*#.*)?$", served):
                    assert following.startswith("servestorm wait http"), f"{page}: {served}"
