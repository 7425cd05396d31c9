"""Whatever a person's hand does to a file of a run, it is named, or it does no harm: never a traceback."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import pytest
from toy_engine import toy_engines, toy_generator, toy_plan, write_toy_model

from servestorm import runner, scrape
from servestorm.errors import StudyError
from servestorm.plan import parse_plan
from servestorm.results import compute
from servestorm.store import read_run

CAPACITY = {"p99_ms": 20, "start_rate_per_s": 200, "probe_s": 8, "warmup_s": 0, "tolerance_percent": 20}
SWEEP = {"max_batch_size": [1], "timeout_us": [100], "concurrency": [1], "duration_s": 8, "warmup_s": 0}
GONE = object()
EDITS = (GONE, None, "x", -1, float("nan"), [])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with one cell or more of every kind of file."""
    folder = tmp_path_factory.mktemp("kept")
    changes = {"engines": ["savedmodel"], "capacity": CAPACITY, "sweep": SWEEP, "scaling": None}
    text = toy_plan(write_toy_model(folder / "toy"), **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scrape, "_start_prometheus", lambda *_: None)
        patch.setattr(runner, "ENGINES", toy_engines("answer"))
        return runner.Study(parse_plan(text, "plan"), text, folder / "runs", toy_generator("queue"), None).carry_out()


def places(value, at=()) -> Iterator[tuple]:
    """Where something stands in a JSON value; of a list, its first."""
    if at:
        yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, part in inside:
        yield from places(part, (*at, key))


def edited(value, at, to):
    changed = copy.deepcopy(value)
    around = changed
    for key in at[:-1]:
        around = around[key]
    if to is GONE:
        del around[at[-1]]
    else:
        around[at[-1]] = to
    return changed


@pytest.mark.parametrize(
    "name",
    ["study", "manifest", "cell", "outcome", "events", "use", "summary", "capacity", "sweep", "settled"],
)
def test_no_edit_of_a_file_is_a_traceback(run, name):
    path = next(path for path in sorted(run.rglob(f"{name}.json")) if len(path.relative_to(run).parts) in (1, 3))
    whole, refused = path.read_text(), 0
    try:
        for at in places(json.loads(whole)):
            for to in EDITS:
                path.write_text(json.dumps(edited(json.loads(whole), at, to)))
                try:
                    compute(read_run(run))
                except StudyError as error:
                    assert path.name in str(error), (at, to, error)
                    refused += 1
    finally:
        path.write_text(whole)
    assert refused
    compute(read_run(run))


@pytest.mark.parametrize(
    ("name", "at", "to", "told"),
    [
        ("capacity", ("probes",), GONE, "probes: field required"),
        (
            "capacity",
            ("probes", 0, "verdict"),
            "perhaps",
            "probes.0.verdict: input should be 'pass', 'fail' or 'invalid'",
        ),
        ("cell", ("variant",), 7, "a run that study.json does not ask for"),
        ("cell", ("engine",), "other", "a run that study.json does not ask for"),
        ("study", ("plan", "capacity", "p99_ms"), GONE, "plan.capacity.p99_ms: field required"),
        ("study", ("variants", 0, "model"), 3, "a model beyond the 1 of the plan"),
        ("events", (0, "t_ns"), float("nan"), "0.t_ns: input should be a valid integer"),
    ],
)
def test_the_fault_is_named_with_its_file_and_its_place(run, name, at, to, told):
    path = next(path for path in sorted(run.rglob(f"{name}.json")) if len(path.relative_to(run).parts) in (1, 3))
    whole = path.read_text()
    path.write_text(json.dumps(edited(json.loads(whole), at, to)))
    try:
        with pytest.raises(StudyError) as caught:
            read_run(run)
    finally:
        path.write_text(whole)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)
