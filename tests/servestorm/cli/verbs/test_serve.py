"""`servestorm serve` prints a request to paste, and serves whether it has one or not."""

import json

import pytest

from models.manifest import ModelDir
from servestorm.cli.verbs.serve import _how_to_ask
from serving.deployment import Endpoint
from tests.stand_ins.toy_model_dir import toy_model

ENDPOINT = Endpoint(
    replica=0, rest_url="http://127.0.0.1:1", grpc_target="127.0.0.1:2", metrics_url="", management_url=None
)


def model_with(tmp_path, **facts):
    path = toy_model(tmp_path).path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
    return ModelDir(path.parent)


@pytest.mark.parametrize("engine", ["savedmodel", "tfserving"])
def test_a_model_that_takes_tensors_alone_has_no_line_to_paste(tmp_path, engine):
    model = model_with(tmp_path, image_signature=None, image_input=None)
    assert _how_to_ask(engine, model, ENDPOINT) == ""


@pytest.mark.parametrize("engine", ["savedmodel", "torchserve"])
def test_the_line_to_paste_sends_the_first_golden_image(tmp_path, engine):
    line = _how_to_ask(engine, toy_model(tmp_path), ENDPOINT)
    assert line.startswith("curl ") and "golden/000.png" in line and "http://127.0.0.1:1/" in line


def test_an_image_that_cannot_be_read_ends_no_server(tmp_path):
    model = toy_model(tmp_path)
    (model.path / "golden" / "000.png").write_bytes(b"another")
    assert _how_to_ask("savedmodel", model, ENDPOINT).startswith("no request to paste: ")
