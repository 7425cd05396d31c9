"""Every relative link and anchor in the Markdown pages resolves, and so does every docs/ path that other files name."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.requirements_here import lacking
from tests.source_tree import ROOT

EXAMPLES = ROOT / "docs" / "examples"
"""Reports of past studies, kept as they were written: their plans may name pages that have moved since."""
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^\s{0,3}\[[^\]]+\]:\s*<?([^>\s]+)", re.MULTILINE)
DOCS_PATH = re.compile(r"(?<![\w./-])docs/[\w./-]*\w")


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository that match one of the patterns (git's own), all of them without a pattern."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        lacking("git", "the tracked files are listed by git, in a clone of the repository")
    listed = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, check=True, capture_output=True)
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and EXAMPLES not in path.parents]


def prose(text: str) -> str:
    """A page without its code: text in fences and between backticks is no link."""
    text = re.sub(r"^(\s*)(```+|~~~+).*?^\1?\s*\2", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)


def links(text: str) -> list[str]:
    """Targets of a page's links and images that do not lead out of the repository."""
    targets = LINK.findall(prose(text)) + DEFINITION.findall(prose(text))
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:", target, flags=re.IGNORECASE)]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings, and those that the page sets itself."""
    without_code = re.sub(r"^(\s*)(```+|~~~+).*?^\1?\s*\2", "", text, flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    found = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", without_code))
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", without_code, flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken(page: Path) -> list[str]:
    """'target: what is wrong' for each link of a page that does not resolve."""
    return [f"{target}: {fault}" for target in links(page.read_text()) if (fault := fault_of(page, target))]


def fault_of(page: Path, target: str) -> str | None:
    """What is wrong with a link's target, or None."""
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.is_relative_to(ROOT):
        return "leads out of the repository"
    if not path.exists():
        return "no such file"
    if anchor and (path.suffix != ".md" or anchor not in anchors(path.read_text())):
        return "no such heading"
    return None


def test_every_relative_link_and_anchor_of_every_page_resolves():
    pages = tracked("*.md")
    assert ROOT / "README.md" in pages
    assert {str(page.relative_to(ROOT)): faults for page in pages if (faults := broken(page))} == {}


def test_every_page_is_on_the_map_of_the_documentation():
    map_page = ROOT / "docs" / "README.md"
    mapped = {(map_page.parent / target.partition("#")[0]).resolve() for target in links(map_page.read_text())}
    pages = [page for page in tracked("docs/*") if page.suffix in (".md", ".json") and page != map_page]
    assert len(pages) > 10
    assert [str(page.relative_to(ROOT)) for page in pages if page not in mapped] == []


def test_every_path_into_docs_that_another_file_names_exists():
    named = {}
    for path in tracked():
        if path.suffix == ".png" or path == Path(__file__).resolve():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if missing := sorted({name for name in DOCS_PATH.findall(text) if not (ROOT / name).exists()}):
            named[str(path.relative_to(ROOT))] = missing
    assert named == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("[a page](plan.md) and ![a picture](images/report.png)", ["plan.md", "images/report.png"]),
        ("[one `code` name](plan.md#the-plan)", ["plan.md#the-plan"]),
        ("[elsewhere](https://example.org/plan.md) and [mail](mailto:a@example.org)", []),
        ("`[code](gone.md)`", []),
        ("```\n[code](gone.md)\n```\n[a page](plan.md)", ["plan.md"]),
        ("[defined below][1]\n\n[1]: plan.md", ["plan.md"]),
    ],
)
def test_links_are_read_outside_code_and_within_the_repository(line, found):
    assert links(line) == found


def test_a_broken_link_and_a_broken_anchor_are_named():
    page = ROOT / "CONTRIBUTING.md"
    assert fault_of(page, "docs/gone.md") == "no such file"
    assert fault_of(page, "README.md#no-such-heading") == "no such heading"
    assert fault_of(page, "../elsewhere.md") == "leads out of the repository"
    assert fault_of(page, "#contributing") is None


def test_anchors_are_those_of_github():
    page = "# The `plan` of a study\n## Rights, and namespaces\n## Again\n## Again\n```\n# no heading\n```\n"
    assert anchors(page) == {"the-plan-of-a-study", "rights-and-namespaces", "again", "again-1"}
