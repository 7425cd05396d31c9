"""The plan: what a person may write, and what they are told where it is wrong."""

from __future__ import annotations

import json
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


def attached(key, given):
    """The endpoint of a plan whose `key` is `given`."""
    address = {"rest": "http://127.0.0.1:8080", key: given}
    listed = ", ".join(f'{name}: "{url}"' for name, url in address.items())
    return (
        f"name: a\nengines: [torchserve]\nbackend: attach\nattach: {{torchserve: {{{listed}}}}}\nrepetitions: 3\n"
        "steady: {rate_per_s: 4, duration_s: 5}\n"
    )


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
        ("name: a\nengines: [savedmodl]\n", "plan.yaml:2: `engines.0`: input should be 'savedmodel', 'torchserve', "),
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
        ("rest", "http://user:secret'@127.0.0.1:8080"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(key, given):
    sentence = refusal(attached(key, given))
    assert "is never sent" in sentence
    assert "secret" not in sentence


@pytest.mark.parametrize("key", ["metrics", "management"])
@pytest.mark.parametrize("query", ["token=s3cr3t", "a=b&api_key=s3cr3t", "X-Amz-Signature=s3cr3t", "access_token="])
def test_a_secret_in_the_parameters_of_an_address_is_refused_and_not_repeated(key, query):
    sentence = refusal(attached(key, f"http://10.0.0.7:8082/metrics?{query}"))
    assert f"`attach.torchserve.{key}`: a secret in an address would stay in the run directory" in sentence
    assert "s3cr3t" not in sentence


@pytest.mark.parametrize(
    "attach",
    [
        ["http://user:s3cr3t@127.0.0.1:8080"],
        "http://user:s3cr3t@127.0.0.1:8080",
        {"torchserve": "Authorization: s3cr3t"},
        {"torchserve": ["Authorization: s3cr3t"]},
        {"torchserve": {"rest": ["http://user:s3cr3t@127.0.0.1:8080"]}},
        {"Authorization: s3cr3t": {"rest": "http://127.0.0.1:8080"}},
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(attach):
    document = {"name": "a", "engines": ["torchserve"], "backend": "attach", "attach": attach}
    assert "s3cr3t" not in refusal(json.dumps(document))


@pytest.mark.parametrize(
    ("key", "typed", "url"),
    [
        ("rest", "10.0.0.7:8501", "http://10.0.0.7:8501"),
        ("rest", " HTTPS://Models.test/ ", "https://models.test"),
        ("rest", "[::1]:8080/", "http://[::1]:8080"),
        ("grpc", "http://10.0.0.7:8500/", "10.0.0.7:8500"),
        ("grpc", "https://models.test:443", "https://models.test:443"),
        ("metrics", "10.0.0.7:8082", "http://10.0.0.7:8082/metrics"),
        ("metrics", "https://models.test/", "https://models.test/metrics"),
        ("metrics", "models.test/a/b?name=x&y=z", "http://models.test/a/b?name=x&y=z"),
        ("management", "10.0.0.7:8081/", "http://10.0.0.7:8081"),
        ("management", "https://models.test/ts/", "https://models.test/ts"),
    ],
)
def test_an_address_is_read_as_a_load_reads_its_host(key, typed, url):
    (place,) = parse_plan(attached(key, typed), "plan.yaml").attach["torchserve"]
    assert getattr(place, key) == url


@pytest.mark.parametrize(
    ("key", "typed", "reason"),
    [
        ("rest", "http://10.0.0.7:8501/v1/models", "has a path: give only http://HOST:PORT"),
        ("rest", "ftp://10.0.0.7", "has the scheme 'ftp': write http://HOST:PORT or https://HOST:PORT"),
        ("rest", "http://10.0.0.7:99999", "has no usable port: write http://HOST:PORT, with a port of 1 to 65535"),
        ("rest", "two words", "is not a URL: write http://HOST:PORT"),
        ("grpc", "::1:8500", "holds an IPv6 address without brackets: write http://[ADDRESS]:PORT"),
        ("grpc", "10.0.0.7:8500/tensorflow.serving", "has a path: give only http://HOST:PORT"),
        ("metrics", "http://10.0.0.7:8082/a b", "is not the URL of a page: write http://HOST:PORT/PATH"),
        ("management", "http://", "is not a URL: write http://HOST:PORT"),
    ],
)
def test_what_is_no_address_is_refused_with_the_real_reason(key, typed, reason):
    assert refusal(attached(key, typed)) == f"plan.yaml:4: `attach.torchserve.{key}`: {reason}, not {typed!r}."


def attached_plan(*endpoints, protocol="rest"):
    document = {"name": "a", "engines": ["torchserve"], "backend": "attach", "protocol": protocol, "repetitions": 3}
    document |= {"steady": {"rate_per_s": 1, "duration_s": 1}}
    document["attach"] = {"torchserve": [{"rest": "http://a:1", "grpc": "a:2", **each} for each in endpoints]}
    return json.dumps(document)


@pytest.mark.parametrize("key", ["headers", "metrics_headers", "management_headers"])
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Authorization": "Bearer s3cr3t"}, "header Authorization has its value in the plan"),
        ({"Transfer-Encoding": "s3cr3t"}, "header Transfer-Encoding is refused"),
        ({"X-A": "s3cr3t\r\nX-B: 1"}, "has a value with a line break"),
        ({"Authorization": ["s3cr3t"]}, "should be a valid string"),
        ({"X-A: s3cr3t": "1"}, "holds a name that is none"),
        ("Authorization=s3cr3t", "should be a valid dictionary"),
        (["Authorization=s3cr3t"], "should be a valid dictionary"),
    ],
)
def test_a_header_that_cannot_be_sent_or_kept_is_refused_and_not_repeated(key, headers, reason):
    sentence = refusal(attached_plan({key: headers}))
    assert reason in sentence
    assert f"`attach.torchserve.0.{key}" in sentence
    assert "s3cr3t" not in sentence


def test_endpoints_of_an_engine_have_the_same_headers():
    one, other = ({"headers": {"Authorization": f"Bearer env:{name}"}} for name in ("ONE", "OTHER"))
    assert "has endpoints with different headers" in refusal(attached_plan(one, other))
    parse_plan(attached_plan(one, {**one, "management_headers": {"Authorization": "env:THIRD"}}), "plan")


def test_headers_of_grpc_are_judged_where_grpc_is_spoken():
    headers = {"headers": {"grpc-timeout": "1S"}}
    parse_plan(attached_plan(headers), "plan")
    assert "grpc-timeout is refused over gRPC" in refusal(attached_plan(headers, protocol=["rest", "grpc"]))


def test_an_endpoint_without_headers_is_kept_as_before_there_were_any():
    headers = {"Authorization": "Bearer env:TOKEN"}
    places = parse_plan(attached_plan({}), "plan").model_dump()["attach"]["torchserve"]
    assert places == [{"rest": "http://a:1", "grpc": "a:2", "metrics": None, "management": None}]
    (place,) = parse_plan(attached_plan({"headers": headers}), "plan").model_dump()["attach"]["torchserve"]
    assert place["headers"] == headers
    assert "metrics_headers" not in place
    empty = parse_plan(attached_plan({"headers": headers, "metrics_headers": {}}), "plan")
    assert empty.model_dump()["attach"]["torchserve"][0]["metrics_headers"] == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: 2024-13-45\n", "plan.yaml: a value cannot be read (month must be in 1..12): correct it"),
        ("name: a\nseed: " + "9" * 5000 + "\n", "plan.yaml: a value cannot be read (Exceeds the limit"),
        ("name: " + "[" * 5000 + "\n", "plan.yaml: this is nested too deeply for a plan"),
        ("name: a\nengines: [savedmodel]\nmodel: {seed: 4294967296}\n", "`model.seed`: input should be less than"),
    ],
)
def test_what_yaml_reads_and_no_plan_holds_is_refused_in_a_sentence(text, sentence):
    told = refusal(text)
    assert sentence in told
    assert "\n" not in told
