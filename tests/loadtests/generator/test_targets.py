"""What is sent and what must come back, for each engine."""

import json
import tracemalloc

import numpy as np
import pytest

from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.generator import jobs, targets
from loadtests.generator.targets import BUNDLED, AnswerCheck, TargetOptions, build_target
from models.manifest import Golden, InputSpec, Manifest, Parity, sha256_of
from serving.errors import WireError

RIGHT = [0.1, 0.9]


@pytest.fixture
def model(tmp_path):
    """A function that writes a model directory of two golden images."""

    def write(golden_from="both", probabilities=RIGHT):
        (tmp_path / "golden").mkdir(exist_ok=True)
        golden = []
        for number, source in enumerate(sorted(BUNDLED.glob("*.png"))[:2]):
            (tmp_path / "golden" / source.name).write_bytes(source.read_bytes())
            golden.append(
                Golden(
                    path=f"golden/{source.name}",
                    sha256=sha256_of(source),
                    probabilities=probabilities[:: 1 - 2 * number],
                )
            )
        manifest = Manifest(
            name="m",
            architecture="test",
            labels=["a", "b"],
            input=InputSpec(height=32, width=32, mean=[0.5] * 3, std=[0.5] * 3),
            parity=Parity(status="proved", tolerance=1e-5, images=2),
            golden=golden,
            golden_from=golden_from,
            created_at="2026-01-01T00:00:00+00:00",
        )
        (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
        return tmp_path / "manifest.json"

    return write


def target(manifest=None, **changes):
    asked = {
        "hosts": ["http://127.0.0.1:8080"],
        "grpc_targets": [],
        "engine": "torchserve",
        "protocol": "rest",
        "model": "m",
        "payload": "image",
        "images_per_request": 1,
        "manifest": manifest,
        "timeout_s": 1.0,
    }
    return build_target(TargetOptions(**{**asked, **changes}))


def reply(*rows):
    return json.dumps({"predictions": rows}).encode()


def test_the_golden_answer_is_right_and_another_image_s_is_wrong(model):
    built = target(model())
    assert built.checked
    assert built.check(0, reply(RIGHT)) == (jobs.OK, jobs.RIGHT, "")
    assert built.check(1, reply(RIGHT)) == (jobs.WRONG_ANSWER, jobs.WRONG, "wrong_answer")
    assert built.check(1, reply(RIGHT[::-1])) == (jobs.OK, jobs.RIGHT, "")


def test_a_small_difference_of_kernels_is_not_a_wrong_answer(model):
    assert target(model()).check(0, reply([0.1004, 0.8996])) == (jobs.OK, jobs.RIGHT, "")
    assert target(model()).check(0, reply([0.12, 0.88])) == (jobs.WRONG_ANSWER, jobs.WRONG, "wrong_answer")


@pytest.mark.parametrize("body", [b"", b"{}", b"not json", reply(), reply(RIGHT, RIGHT), b'{"error": "no"}'])
def test_a_body_that_was_not_asked_for_is_a_bad_reply(body, model):
    outcome, correct, reason = target(model()).check(0, body)
    assert (outcome, correct) == (jobs.BAD_REPLY, jobs.UNCHECKED)
    assert reason.startswith("the reply")


@pytest.mark.parametrize(
    ("golden_from", "engine", "checked"),
    [
        ("both", "torchserve", True),
        ("both", "savedmodel", True),
        ("savedmodel", "savedmodel", True),
        ("savedmodel", "tfserving", True),
        ("savedmodel", "torchserve", False),
        ("mar", "torchserve", True),
        ("mar", "savedmodel", False),
        (None, "torchserve", False),
    ],
)
def test_answers_are_checked_only_for_the_artifact_that_gave_them(golden_from, engine, checked, model):
    built = target(model(golden_from), engine=engine)
    assert built.checked is checked
    found = built.check(0, reply([0.5, 0.5]))[:2]
    assert found == ((jobs.WRONG_ANSWER, jobs.WRONG) if checked else (jobs.OK, jobs.UNCHECKED))


def test_several_images_a_request_are_each_sent_first_once(model):
    built = target(model(), images_per_request=3)
    assert len(built.requests[0]) == 2
    assert built.check(0, reply(RIGHT, RIGHT[::-1], RIGHT)) == (jobs.OK, jobs.RIGHT, "")
    assert built.check(0, reply(RIGHT))[:2] == (jobs.BAD_REPLY, jobs.UNCHECKED)


def test_every_endpoint_gets_requests_with_its_own_host(model):
    built = target(model(), hosts=["http://127.0.0.1:1111", "http://127.0.0.1:2222"])
    hosts = [requests[0].head.split(b"Host: ")[1].split(b"\r\n")[0] for requests in built.requests]
    assert hosts == [b"127.0.0.1:1111", b"127.0.0.1:2222"]


def test_grpc_goes_to_the_engine_s_own_port_unless_told(model):
    assert target(model(), protocol="grpc").addresses[0].candidates[0].sockaddr[1] == 7070
    assert target(model(), protocol="grpc", engine="tfserving").addresses[0].candidates[0].sockaddr[1] == 8500
    assert target(model(), protocol="grpc", grpc_targets=["127.0.0.1:9"]).addresses[0].candidates[0].sockaddr[1] == 9


def test_bundled_digits_are_sent_unchecked_without_a_manifest():
    built = target()
    assert not built.checked
    assert len(built.requests[0]) == 32
    assert built.check(0, reply(np.full(10, 0.1).tolist())) == (jobs.OK, jobs.UNCHECKED, "")


def test_the_first_golden_image_that_is_gone_is_named(model, tmp_path):
    manifest = model()
    next((tmp_path / "golden").iterdir()).unlink()
    with pytest.raises(LoadEnvironmentError, match="golden image"):
        target(manifest)


def test_a_tensor_without_an_input_spec_is_refused():
    with pytest.raises(LoadTestError, match="the tensor payload cannot be built"):
        target(payload="tensor")


def counting_check(reads):
    def read(_image, body):
        reads.append(len(body))
        if body[:1] == b"!":
            raise WireError("the reply is wrong: " + body.decode())

    return AnswerCheck(read, None)


def test_large_replies_are_read_once_and_are_remembered_in_few_bytes():
    reads = []
    check = counting_check(reads)
    bodies = [bytes([number]) * 1_000_000 for number in range(30)]
    tracemalloc.start()
    for _ in range(3):
        for image, body in enumerate(bodies):
            assert check(image, bytes(bytearray(body))) == (jobs.OK, jobs.UNCHECKED, "")
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(reads) == 30
    assert held_bytes < 500_000


def test_replies_of_any_size_take_no_more_than_the_stated_memory(monkeypatch):
    monkeypatch.setattr(targets, "_REMEMBERED", 64)
    check = counting_check([])
    tracemalloc.start()
    for number in range(1_000):
        size = targets.REMEMBERED_BYTES + (number % 3 - 1) * 5_000
        check(0, number.to_bytes(2, "big") * (size // 2))
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 64 * (targets.REMEMBERED_BYTES + 500)


def test_replies_that_differ_only_in_their_last_byte_are_judged_apart():
    check = counting_check(reads := [])
    for last in (b"a", b"b"):
        check(0, b"x" * 100_000 + last)
        check(1, b"x" * 100_000 + last)
    assert len(reads) == 4


def test_a_sentence_about_a_reply_does_not_grow_with_it():
    outcome, _, reason = counting_check([])(0, b"!" * 1_000_000)
    assert outcome == jobs.BAD_REPLY
    assert len(reason) == 300
