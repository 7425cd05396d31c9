"""docs/reference/results.schema.json says what results.json holds, and real results keep to it."""

from __future__ import annotations

import copy
import json

import pytest

from servestorm.analysis import results_schema
from servestorm.analysis.results import compute
from servestorm.rundir.record import read_run
from tests.source_tree import ROOT
from tests.stand_ins.synthetic_run import make_run

PUBLISHED = ROOT / "docs" / "reference" / "results.schema.json"


@pytest.fixture(scope="module")
def schema():
    return json.loads(PUBLISHED.read_text())


@pytest.fixture(scope="module")
def faults(schema):
    """Every fault of a document, as 'place: what is wrong'."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return lambda document: [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(document)]


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    results = compute(read_run(make_run(tmp_path_factory.mktemp("runs"))))
    return json.loads(json.dumps(results.as_json(), allow_nan=False))


def test_the_published_schema_is_that_of_the_code():
    told = "make it again: .venv/bin/python -m servestorm.analysis.results_schema > docs/reference/results.schema.json"
    assert PUBLISHED.read_text() == results_schema.text(), told


def test_a_real_result_keeps_to_it(faults, document):
    assert faults(document) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d.pop("metrics"), "$"),
        (lambda d: d.update(extra=1), "$"),
        (lambda d: d["metrics"][0].update(better="sideways"), "$.metrics[0].better"),
        (lambda d: d["metrics"][0]["values"]["savedmodel"].pop("sd"), "$.metrics[0].values.savedmodel"),
        (lambda d: d["runs"][0].update(samples="many"), "$.runs[0].samples"),
        (lambda d: d["figures"]["over_time"]["steady"].pop("bin_s"), "$.figures.over_time.steady"),
        (lambda d: d.update(schema_version=1), "$.schema_version"),
    ],
)
def test_what_is_missing_wrong_or_unknown_is_found(faults, document, change, place):
    broken = copy.deepcopy(document)
    change(broken)
    found = faults(broken)
    assert len(found) == 1
    assert found[0].startswith(f"{place}:")


def test_fields_say_what_they_are(schema):
    metric = schema["$defs"]["Metric"]["properties"]
    text = "'a|b' for each pair of engines: two-sided p over runs, as that of a verdict without its corrections."
    assert metric["p"]["description"] == text
    assert schema["$defs"]["Setting"]["properties"]["p99_ms"]["description"] == "Of a request."


def test_every_object_with_fields_is_closed(schema):
    open_ones = [name for name, part in schema["$defs"].items() if part.get("additionalProperties") is not False]
    assert open_ones == []
    assert schema["additionalProperties"] is False
