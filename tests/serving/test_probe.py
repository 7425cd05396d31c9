"""The question that a server must answer before it counts as ready, and what is said of each reply."""

import json

import pytest

from models.manifest import Golden, Manifest, ModelDir, Parity, sha256_of
from serving.deployment import Endpoint
from serving.errors import DeploymentError
from serving.headers import Headers
from serving.probe import KnownRequest, first_answer
from serving.wire import WIRES
from tests.stand_ins.gateway import gateway

RIGHT = [0.25, 0.75]


@pytest.fixture
def model(tmp_path):
    """A function that writes a model directory of one golden image, with the facts given."""

    def write(golden_from="both", answer=RIGHT, **facts):
        (tmp_path / "000.png").write_bytes(b"an image")
        golden = [Golden(path="000.png", sha256=sha256_of(tmp_path / "000.png"), probabilities=answer)]
        parity = Parity(status="proved", tolerance=1e-5, images=256)
        facts = {"labels": [], "input": None, "parity": parity, "created_at": "2026-01-01T00:00:00+00:00", **facts}
        manifest = Manifest(name="m", architecture="test", golden=golden, golden_from=golden_from, **facts)
        (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
        return ModelDir(tmp_path)

    return write


def verdict(model, reply, status=200, engine="torchserve"):
    return KnownRequest.of(WIRES[engine], model).verdict(status, json.dumps(reply).encode())


@pytest.mark.parametrize("reply", [RIGHT, [RIGHT], {"predictions": [RIGHT]}, {"b": 0.75, "a": 0.25}])
def test_the_right_answer_is_right_in_every_form_that_the_import_reads(reply, model):
    written = model(labels=["a", "b"])
    assert verdict(written, reply) == "right"
    assert verdict(written, reply, status=503) == "HTTP 503"


def test_one_of_two_outputs_is_asked_for_by_its_name(model):
    written = model(output="scores")
    reply = {"predictions": [{"scores": RIGHT, "classes": 1}]}
    assert verdict(written, reply, engine="savedmodel") == "right"
    assert verdict(written, {"predictions": [{"scores": RIGHT[::-1], "classes": 1}]}) == "a wrong answer"


def test_what_is_wrong_with_an_unreadable_answer_is_said(model):
    reply = {"predictions": [{"classes": 1, "label": "b"}]}
    sentence = "an unreadable answer: the reply has outputs classes, label, but not 'probabilities'"
    assert verdict(model(), reply) == sentence


@pytest.mark.parametrize(
    "reply", [{"tabby": 0.6, "tiger": 0.1}, "tabby", 3, [[[1, 2], [3, 4]]], {"predictions": [[0.5]]}]
)
@pytest.mark.parametrize(("golden_from", "answer"), [("savedmodel", RIGHT), (None, [])])
def test_any_answer_will_do_where_the_right_one_is_not_known(reply, golden_from, answer, model):
    assert verdict(model(golden_from, answer), reply) == "right"


@pytest.mark.parametrize("golden_from", ["both", "savedmodel"])
def test_an_error_is_no_answer_though_its_status_was_200(golden_from, model):
    reply = {"code": 400, "type": "BadRequestException", "message": "no image"}
    sentence = "an unreadable answer: the reply is an error: 400 BadRequestException no image"
    assert verdict(model(golden_from), reply) == sentence


def test_an_unreadable_answer_that_repeats_a_token_is_told_without_it(model, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cr3t-t0k3n")
    headers = Headers.of_options(["Authorization=Bearer env:TOKEN"])
    with gateway("another", (200, b'{"error": "s3cr3t-t0k3n has expired"}')) as server:
        endpoint = Endpoint(0, server.url, "", "", headers=headers)
        with pytest.raises(DeploymentError, match=r"the reply is an error: \.\.\. has expired"):
            first_answer(endpoint, WIRES["savedmodel"], model(), timeout_s=0.3)
