"""What a report prints, read back: tables of report.md and report.html as text, and numbers with their rounding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser

NUMBER = re.compile(r"[+\u2212-]?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Table:
    """A table with the headings above it; cells as a reader sees them."""

    section: str
    title: str
    """The nearest heading or summary above it."""
    head: list[str]
    rows: list[list[str]]

    def row(self, label: str) -> list[str]:
        """The cells beside a label."""
        (found,) = [row[1:] for row in self.rows if row[0] == label]
        return found


def number_of(text: str) -> float:
    """The first number of a printed text."""
    found = NUMBER.search(text)
    assert found, f"no number in {text!r}"
    return float(found[0].replace(",", "").replace("\u2212", "-"))


def rounding_of(text: str) -> float:
    """Half a unit of the last digit of the first number of a printed text."""
    found = NUMBER.search(text)
    assert found, f"no number in {text!r}"
    return 0.5 * 10.0 ** -len(found[0].partition(".")[2]) * (1 + 1e-9)


def prints(text: str, value: float | None) -> bool:
    """Whether the first number of a text is the value, up to the rounding that the text shows."""
    if value is None:
        return text == "–"
    return text != "–" and abs(number_of(text) - value) <= rounding_of(text)


def markdown_tables(text: str) -> list[Table]:
    """Every table of a Markdown page."""
    tables: list[Table] = []
    section = title = ""
    block: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("| "):
            block.append([_plain(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
            continue
        if block:
            tables.append(Table(section, title, block[0], block[2:]))
            block = []
        if line.startswith("## "):
            section = title = _plain(line[3:])
        elif line.startswith("### "):
            title = _plain(line[4:])
        elif summary := re.search(r"<summary>(.*)</summary>", line):
            title = summary[1].replace("&#x27;", "'")
    return tables


def _plain(text: str) -> str:
    text = text.strip().replace("**", "")
    return re.sub(r"\\(.)", r"\1", text)


class HtmlTables(HTMLParser):
    """The rows of every table of an HTML page, as texts of their cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._cell: list[str] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self._cell = []

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None


def card_texts(page: str) -> list[dict[str, str]]:
    """Of each card of an HTML page its numbers by their terms."""
    cards = page.split('<div class="card ')[1:]
    pattern = re.compile(r'<dt>(.*?)</dt><dd[^>]*>(.*?)<span class="unit">')
    return [dict(pattern.findall(card.split("</dl>")[0])) for card in cards]
