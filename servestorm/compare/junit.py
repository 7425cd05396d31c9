"""A comparison as JUnit XML, which continuous integration shows: one test case for each metric of each engine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from servestorm.compare.comparison import Comparison, Row
from servestorm.compare.text import headline, warnings

ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""


def junit(comparison: Comparison) -> str:
    """failure: a regression; error: a number that NEW lost; skipped: what the runs do not tell."""
    count = {
        "tests": len(comparison.rows),
        "failures": len(comparison.with_finding("regression")),
        "errors": len(comparison.with_finding("lost")),
        "skipped": len(comparison.with_finding("inconclusive", "not compared")),
    }
    suite = ElementTree.Element("testsuite", {"name": "servestorm compare"} | {k: str(v) for k, v in count.items()})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(comparison):
        ElementTree.SubElement(properties, "property", name=name, value=_legal(value))
    for row in comparison.rows:
        suite.append(_case(row))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _properties(comparison: Comparison) -> Iterator[tuple[str, str]]:
    yield from (("old", comparison.old), ("new", comparison.new))
    yield "margin_percent", f"{comparison.margin_percent:g}"
    yield "summary", headline(comparison)
    for sentence in warnings(comparison):
        yield "note", sentence


def _case(row: Row) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=_legal(f"servestorm.{row.engine}"), name=_legal(row.key))
    reason = _legal(row.reason)
    if row.finding == "regression":
        ElementTree.SubElement(case, "failure", type="regression", message=reason)
    elif row.finding == "lost":
        ElementTree.SubElement(case, "error", type="lost", message=reason)
    elif row.finding in ("inconclusive", "not compared"):
        ElementTree.SubElement(case, "skipped", message=reason)
    else:
        ElementTree.SubElement(case, "system-out").text = reason
    return case


def _legal(text: str) -> str:
    return ILLEGAL.sub("\ufffd", text)
