"""README shows the verdict of the study that is kept as an example, and no other."""

from __future__ import annotations

from servestorm.analysis.stored_results import read_results
from servestorm.report.headline import first_line
from tests.source_tree import ROOT

STUDY = ROOT / "docs" / "examples" / "process" / "results.json"


def test_the_sample_in_readme_is_the_first_lines_of_the_kept_study():
    first = first_line(read_results(STUDY))
    quoted = [
        line.removeprefix(">").strip() for line in (ROOT / "README.md").read_text().splitlines() if line[:1] == ">"
    ]
    sample = [" ".join(part.split()) for part in "\n".join(quoted).split("\n\n")]
    assert sample == [f"**{first.verdict}**", *first.further], "copy the first lines of docs/examples/process/report.md"
