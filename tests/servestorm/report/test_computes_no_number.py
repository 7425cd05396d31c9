"""The report prints figures and computes none: sums, means and percentiles are made where a figure is defined."""

from __future__ import annotations

import ast

import pytest

from tests.source_tree import ROOT

FILES = sorted((ROOT / "servestorm" / "report").rglob("*.py"))
AGGREGATES = {"sum", "fsum", "mean", "fmean", "median", "average", "percentile", "quantile", "std", "stdev", "round"}
ARRAYS = {"numpy", "statistics", "scipy", "pandas"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "servestorm" / "report")))
def test_it_aggregates_nothing(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            assert name not in AGGREGATES, f"line {node.lineno}: {name}(): let analysis give the number"
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not ARRAYS & {module.partition(".")[0] for module in modules}, f"line {node.lineno}"
