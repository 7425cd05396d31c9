"""The plan: what a person may write, and what they are told where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from loadtests.samples.validity import samples_needed
from servestorm.errors import StudyError
from servestorm.plan.study_plan import load_plan, parse_plan
from tests.source_tree import ROOT

QUICKSTART = ROOT / "studies" / "quickstart.yaml"
GOOD = "name: a\nengines: [savedmodel]\n"


def refusal(text: str) -> str:
    with pytest.raises(StudyError) as caught:
        parse_plan(text, "plan.yaml")
    return str(caught.value)


def test_the_quickstart_asks_for_what_the_readme_promises():
    study_plan = load_plan(QUICKSTART)
    assert study_plan.engines == ["savedmodel", "torchserve"]
    assert (study_plan.cold_starts, study_plan.budget) == (4, 360)
    assert study_plan.interleaved and study_plan.most_repetitions >= 5
    assert study_plan.steady and study_plan.bursty
    assert study_plan.scaling and study_plan.scaling.replicas == [1, 2]


def test_the_quickstart_has_samples_enough_for_a_p95_of_every_run():
    """A p99 needs 662: 10 s at this rate, in which time two rounds bring more for every other question."""
    study_plan = load_plan(QUICKSTART)
    burst = study_plan.bursty
    mean_rate = (burst.peak_rate * burst.on_s + burst.base_rate * burst.off_s) / (burst.on_s + burst.off_s)
    assert study_plan.steady.rate_per_s * study_plan.steady.duration_s >= samples_needed(0.95)
    assert mean_rate * burst.duration_s >= samples_needed(0.95)


def test_a_wrong_key_is_named_with_its_line_and_the_nearest_right_one():
    text = GOOD + "steady:\n  rate_per_sec: 5\n  duration_s: 3\n"
    assert refusal(text).startswith("plan.yaml:4: there is no key `steady.rate_per_sec`, did you mean `rate_per_s`?")


def test_a_wrong_key_at_the_top_wins_over_the_gap_it_leaves():
    assert refusal("name: a\nengnes: [x]\n").startswith(
        "plan.yaml:2: there is no key `engnes`, did you mean `engines`?"
    )


def test_a_wrong_key_unlike_any_lists_the_right_ones():
    assert "there is no key `model.zzz`; the keys are name, path, dataset" in refusal(GOOD + "model: {zzz: 1}\n")


def test_a_wrong_key_within_cpus_is_named_by_that_key():
    told = refusal(GOOD + "cpus: {engin: [0], generator: [1]}\n")
    assert told.startswith("plan.yaml:3: there is no key `cpus.engin`, did you mean `engine`?")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: a\nengines: [savedmodl]\n", "plan.yaml:2: `engines.0`: input should be 'savedmodel', 'torchserve' or"),
        ("name: a\nengines: [savedmodel, savedmodel]\n", "engines names one twice"),
        (GOOD + "cold_starts: 0\n", "nothing is asked"),
        (GOOD + "steady: {rate_per_s: 0, duration_s: 3}\n", "plan.yaml:3: `steady.rate_per_s`"),
        (
            GOOD + "bursty: {base_rate: 9, peak_rate: 5, on_s: 1, off_s: 1, duration_s: 2}\n",
            "peak_rate (5) must be above base_rate (9)",
        ),
        (GOOD + "scaling: {replicas: [2, 1], duration_s: 2}\n", "replicas must grow"),
        (GOOD + "cpus: all\n", "plan.yaml:3: `cpus`: auto or a mapping"),
        ("name: ../x\nengines: [savedmodel]\n", "plan.yaml:1: `name`"),
        ("engines: [savedmodel]\n", "`name` is missing"),
        ("- a\n", "a plan is a mapping"),
        ("a: [\n", "this is not YAML"),
        ("", "a plan is a mapping"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_a_sentence(text, told):
    assert told in refusal(text)


def test_a_missing_plan_is_named():
    with pytest.raises(StudyError, match=r"nowhere\.yaml does not exist"):
        load_plan(Path("nowhere.yaml"))


def test_a_folder_is_no_plan(tmp_path):
    with pytest.raises(StudyError, match="cannot be read as a plan"):
        load_plan(tmp_path)


def test_every_key_is_described():
    from servestorm.plan import study_plan

    models = [model for model in vars(study_plan).values() if isinstance(model, type) and issubclass(model, BaseModel)]
    undescribed = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert len(models) > 10
    assert undescribed == []


def test_the_reference_page_is_of_this_plan():
    from servestorm.plan.reference import page

    written = (ROOT / "docs" / "reference" / "plan.md").read_text()
    assert written == page(), "run python -m servestorm.plan.reference > docs/reference/plan.md"
    assert "| steady |" in written
    assert "| **rate_per_s** | number (over 0, at most 1e+06) |" in written


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("rest", "http://user:secret@127.0.0.1:8080"),
        ("grpc", "user:secret@127.0.0.1:8500"),
        ("metrics", "http://user:secret/x@127.0.0.1:8082/metrics"),
        ("management", "user:secret@127.0.0.1:8081"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(key, given):
    address = {"rest": "http://127.0.0.1:8080", key: given}
    listed = ", ".join(f'{name}: "{url}"' for name, url in address.items())
    text = f"name: a\nengines: [torchserve]\nbackend: attach\nattach: {{torchserve: {{{listed}}}}}\nrepetitions: 3\n"
    sentence = refusal(text)
    assert "is never sent" in sentence
    assert "secret" not in sentence
