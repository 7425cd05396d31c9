"""The packed handler answers what clients send, in batches, and refuses one request without harming the others."""

import base64
import importlib.util
import json
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from models.preprocessing import preprocess
from serving.engines.torchserve import HANDLER_COUNTERS
from tests.stand_ins.pictures import encode, picture


class FakeContext:
    """What of TorchServe's context the handler may use."""

    def __init__(self, model_dir):
        self.system_properties = {"model_dir": str(model_dir)}
        self.manifest = json.loads((model_dir / "MAR-INF" / "MANIFEST.json").read_text())
        self.statuses = {}
        self.content_types = {}

    def set_response_status(self, code=200, phrase="", idx=0):
        self.statuses[idx] = code

    def set_response_content_type(self, idx, value):
        self.content_types[idx] = value


@pytest.fixture(scope="module")
def model_dir(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(exported.mar_path) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def handler(model_dir):
    """The handler imported from the archive, as TorchServe finds it: alone in its folder."""
    sys.path.insert(0, str(model_dir))
    try:
        spec = importlib.util.spec_from_file_location("packed_handler", model_dir / "handler.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(model_dir))
        sys.modules.pop("preprocessing", None)
    instance = module.ImageHandler()
    instance.initialize(FakeContext(model_dir))
    return instance


@pytest.fixture
def ask(handler, model_dir):
    def ask(*bodies):
        context = FakeContext(model_dir)
        replies = handler.handle([{"body": body} for body in bodies], context)
        assert set(context.content_types.values()) == {"application/json"}
        return [json.loads(reply) for reply in replies], context.statuses

    return ask


def b64(image):
    return {"b64": base64.b64encode(image).decode()}


@pytest.fixture(scope="module")
def golden(exported):
    images = exported.golden_images()[:4]
    return images, [entry.probabilities for entry in exported.manifest.golden[:4]]


def close(rows, expected):
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)


def test_an_image_as_the_body_gets_its_probabilities(ask, golden):
    replies, statuses = ask(bytearray(golden[0][0]))
    close(replies[0]["predictions"], golden[1][:1])
    assert statuses == {}


def test_json_carries_several_encoded_images(ask, golden):
    replies, _ = ask({"instances": [b64(image) for image in golden[0]]})
    close(replies[0]["predictions"], golden[1])


def test_json_may_come_unparsed_as_grpc_sends_it(ask, golden):
    body = json.dumps({"instances": [b64(golden[0][1])]}).encode()
    replies, _ = ask(bytearray(b"  " + body), body.decode())
    for reply in replies:
        close(reply["predictions"], golden[1][1:2])


def test_a_tensor_is_taken_as_it_is(ask, golden, exported):
    tensor = preprocess(golden[0][2], exported.manifest.input).tolist()
    replies, _ = ask({"instances": [tensor, tensor]})
    close(replies[0]["predictions"], [golden[1][2]] * 2)


def test_a_batch_answers_each_request_with_its_own_images(ask, golden):
    images, expected = golden
    replies, _ = ask(bytearray(images[3]), {"instances": [b64(images[1]), b64(images[0])]}, bytearray(images[2]))
    close(replies[0]["predictions"], [expected[3]])
    close(replies[1]["predictions"], [expected[1], expected[0]])
    close(replies[2]["predictions"], [expected[2]])


def test_the_whole_batch_is_one_forward_pass(handler, ask, golden, monkeypatch):
    sizes = []
    forward = handler.forward
    monkeypatch.setattr(handler, "forward", lambda images: sizes.append(len(images)) or forward(images))
    ask(*map(bytearray, golden[0]))
    assert sizes == [4]


def test_the_field_may_be_called_data(handler, model_dir, golden):
    reply = handler.handle([{"data": bytearray(golden[0][0])}], FakeContext(model_dir))
    close(json.loads(reply[0])["predictions"], golden[1][:1])


BAD = {
    "text": (bytearray(b"hello"), "neither a JPEG nor a PNG"),
    "nothing": (bytearray(b""), "neither a JPEG nor a PNG"),
    "half an image": (bytearray(encode(picture(30, 30), "PNG")[:200]), "cannot be decoded"),
    "broken json": (bytearray(b'{"instances": ['), "neither an image nor JSON"),
    "a number": ("3", "not an object"),
    "another field": ({"inputs": []}, '"instances"'),
    "no instances": ({"instances": []}, '"instances"'),
    "no base64": ({"instances": [{"b64": "!!"}]}, "valid base64"),
    "base64 of a number": ({"instances": [{"b64": 3}]}, "valid base64"),
    "an unknown key": ({"instances": [{"image": "aaaa"}]}, "valid base64"),
    "base64 of no image": ({"instances": [{"b64": "aGVsbG8="}]}, "neither a JPEG nor a PNG"),
    "a wrong shape": ({"instances": [[[1.0, 2.0, 3.0]]]}, r"shape \(1, 3\), not \(32, 32, 3\)"),
    "a ragged tensor": ({"instances": [[[1.0], [1.0, 2.0]]]}, "neither an image nor a tensor"),
    "strings": ({"instances": ["abc"]}, "neither an image nor a tensor"),
    "mixed": ({"instances": [{"b64": "aGVsbG8="}, [1.0]]}, "neither an image nor a tensor"),
    "deep nesting": ("[" * 100_000, "neither an image nor JSON"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_is_refused_alone(ask, golden, kind):
    body, sentence = BAD[kind]
    replies, statuses = ask(bytearray(golden[0][0]), body, bytearray(golden[0][1]))
    assert statuses == {1: 400}
    assert replies[1]["code"] == 400
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(replies[1]["message"])
    close(replies[0]["predictions"], golden[1][:1])
    close(replies[2]["predictions"], golden[1][1:2])


def test_a_batch_of_bad_requests_only_is_answered(ask):
    replies, statuses = ask(bytearray(b"a"), bytearray(b"b"))
    assert statuses == {0: 400, 1: 400}
    assert [reply["type"] for reply in replies] == ["BadRequestException"] * 2


def test_the_handler_module_holds_one_class_and_imports_nothing_of_the_project(model_dir):
    source = (model_dir / "handler.py").read_text()
    assert source.count("\nclass ") == 1
    for name in ("handler.py", "preprocessing.py"):
        text = (model_dir / name).read_text()
        assert "from models" not in text and "import models" not in text and "import ts" not in text


class Counted:
    """TorchServe's metrics, as a dict."""

    def __init__(self):
        self.counters = {}

    def add_counter(self, name, value):
        self.counters[name] = self.counters.get(name, 0) + value


def test_phases_are_counted_for_each_request_of_a_batch_and_told_now_and_then(handler, model_dir, monkeypatch):
    context, counted = FakeContext(model_dir), Counted()
    context.metrics = counted
    rows = [{"body": bytearray(encode(picture(30, 30, seed=seed), "PNG"))} for seed in range(3)]
    ticks = iter(range(0, 10**12, 100_000_000))  # every look at the clock is 100 ms later
    clock = SimpleNamespace(monotonic_ns=lambda: next(ticks))
    monkeypatch.setitem(type(handler).handle.__globals__, "time", clock)
    handler.reported_ns = 0
    handler.counted = dict.fromkeys(handler.counted, 0)
    handler.handle(rows, context)
    assert counted.counters == {
        "PreprocessTime": 300.0,
        "InferenceTime": 300.0,
        "PostprocessTime": 300.0,
        "HandledRequests": 3,
    }
    monkeypatch.setattr(handler, "reported_ns", 10**12)
    handler.handle(rows, context)
    assert counted.counters["HandledRequests"] == 3  # not a quarter of a second later: kept for the next time
    assert handler.counted["HandledRequests"] == 3


def test_the_engines_metrics_configuration_tells_of_every_counter_of_the_handler(handler):
    assert tuple(handler.counted) == HANDLER_COUNTERS


@pytest.mark.parametrize(("setting", "runs"), [(None, 2), ("1", 2), ("0", 0)])
def test_the_warm_up_may_be_left_to_the_first_requests(handler, model_dir, monkeypatch, setting, runs):
    monkeypatch.delenv("SERVESTORM_WARMUP", raising=False)
    if setting is not None:
        monkeypatch.setenv("SERVESTORM_WARMUP", setting)
    fresh, forwarded = type(handler)(), []
    monkeypatch.setattr(type(handler), "forward", lambda self, images: forwarded.append(len(images)))
    fresh.initialize(FakeContext(model_dir))
    assert forwarded == [1] * runs
