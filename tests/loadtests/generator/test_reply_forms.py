"""What the import reads of a handler's answers, a load reads too, over REST and gRPC: one table for all."""

import json
import zipfile

import numpy as np
import pytest

from loadtests.generator import jobs
from loadtests.generator.targets import answer_check
from models.answers import AnswerNames
from models.artifacts.handler.run import HandlerFailed, probabilities, run_handler
from models.manifest import Golden, Manifest, Parity
from serving.wire import WIRES
from serving.wire.protos import tfserving_pb2, torchserve_pb2
from tests.models.artifacts.reply_forms import ANSWERED, ERRORS, LABELS, OUTPUT, READ, RIGHT

FORMS = {**READ, **ANSWERED, **ERRORS}
HANDLER = """
ANSWERS = [{answers}]

def handle(data, context):
    return data and [ANSWERS[row["body"][0]] for row in data]
"""


@pytest.fixture(scope="module")
def replies(tmp_path_factory):
    """What a handler's worker sends to clients, for each form, by its name."""
    path = tmp_path_factory.mktemp("forms") / "forms.mar"
    names = {"model": {"modelName": "forms", "handler": "handler.py", "modelVersion": "1.0"}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(names))
        archive.writestr("handler.py", HANDLER.format(answers=", ".join(FORMS.values())))
    found = run_handler(path, [bytes([index]) for index in range(len(FORMS))])
    return dict(zip(FORMS, found, strict=True))


def manifest(golden_from="both", answers=(RIGHT,), labels=LABELS, output=OUTPUT):
    golden = [Golden(path="golden/000.png", sha256="0" * 64, probabilities=list(answer)) for answer in answers]
    parity = Parity(status="proved", tolerance=1e-5, images=256)
    facts = {
        "parity": parity,
        "golden": golden,
        "input": None,
        "golden_from": golden_from,
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    return Manifest(name="m", architecture="test", labels=list(labels), output=output, **facts)


def judged(body, protocol, known=None, engine="torchserve", images=1):
    """(outcome, reason) of a reply to golden images as a load judges it."""
    groups = [list(range(images))]
    outcome, _, reason = answer_check(WIRES[engine], protocol == "grpc", known, groups)(0, body)
    return jobs.OUTCOMES[outcome], reason


def sent(body, protocol):
    """The handler's answer as it travels."""
    return body if protocol == "rest" else torchserve_pb2.PredictionResponse(prediction=body).SerializeToString()


@pytest.mark.parametrize("form", READ)
def test_the_import_reads_it(form, replies):
    np.testing.assert_array_equal(probabilities([replies[form]], AnswerNames(LABELS, OUTPUT)), [RIGHT])


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("form", READ)
def test_a_load_reads_it(form, protocol, replies):
    body = sent(replies[form]["body"], protocol)
    assert judged(body, protocol, manifest()) == ("ok", "")
    assert judged(body, protocol, manifest(answers=[RIGHT[::-1]])) == ("wrong_answer", "wrong_answer")


@pytest.mark.parametrize("known", [None, manifest("savedmodel")], ids=["no manifest", "answers of the other artifact"])
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("form", [*READ, *ANSWERED])
def test_where_no_right_answer_is_known_any_answer_counts(form, protocol, known, replies):
    assert judged(sent(replies[form]["body"], protocol), protocol, known) == ("ok", "")


@pytest.mark.parametrize("form", ANSWERED)
def test_neither_import_nor_load_takes_another_answer_for_a_right_one(form, replies):
    outcome, reason = judged(replies[form]["body"], "rest", manifest())
    assert outcome in ("bad_reply", "wrong_answer")
    assert reason != "wrong_answer"  # it says what is wrong
    if outcome == "bad_reply":
        with pytest.raises(HandlerFailed) as refusal:
            probabilities([replies[form]], AnswerNames(LABELS, OUTPUT))
        assert reason in str(refusal.value)


@pytest.mark.parametrize("known", [None, manifest("savedmodel"), manifest()], ids=["nothing", "not this", "all"])
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize("form", ERRORS)
def test_an_error_is_a_failure_by_its_content_whatever_is_known(form, protocol, known, replies):
    outcome, reason = judged(sent(replies[form]["body"], protocol), protocol, known)
    assert outcome == "bad_reply"
    assert "no image" in reason or "out of memory" in reason or "empty" in reason


def test_an_error_is_no_answer_for_the_import_either(replies):
    for form in ERRORS:
        with pytest.raises(HandlerFailed, match="cannot be compared: the reply is"):
            probabilities([replies[form]], AnswerNames(LABELS, OUTPUT))


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize(
    ("reply", "images"),
    [
        ("[[0.25, 0.75], [0.75, 0.25]]", 2),
        ("[[[0.25, 0.75], [0.75, 0.25]]]", 2),
        ('{"predictions": [[0.25, 0.75], [0.75, 0.25]]}', 2),
        ('[{"a": 0.25, "b": 0.75}, {"b": 0.25, "a": 0.75}]', 2),
        ('{"predictions": [{"probabilities": [0.25, 0.75]}, {"probabilities": [0.75, 0.25]}]}', 2),
        ('{"probabilities": [[0.25, 0.75], [0.75, 0.25]], "classes": [1, 0]}', 2),
    ],
)
def test_replies_to_several_images_are_read_in_their_order(reply, images, protocol):
    known = manifest(answers=[RIGHT, RIGHT[::-1]])
    assert judged(sent(reply.encode(), protocol), protocol, known, images=images) == ("ok", "")


@pytest.mark.parametrize(
    ("reply", "outcome", "reason"),
    [
        ("[[0.25, 0.75]]", "bad_reply", "the reply has numbers of shape [1, 2] for 2 images"),
        ("[0.25, 0.75, 0.5]", "bad_reply", "the reply has numbers of shape [3] for 2 images"),
        ("[0.25, 0.75]", "wrong_answer", "wrong_answer: shape [2, 1] instead of [2, 2]"),
        ('{"a": 0.25}', "bad_reply", "the reply leaves out 'b', so its numbers cannot be put in order"),
        ('{"x": [1], "y": [2]}', "bad_reply", "the reply has outputs x, y, but not 'probabilities'"),
        ("[[0.25, 0.75], [1.0]]", "bad_reply", "the reply's rows differ in length"),
        ('"cat"', "bad_reply", "the reply is a text and not numbers: 'cat'"),
    ],
)
def test_a_reply_that_cannot_be_read_says_why(reply, outcome, reason):
    known = manifest(answers=[RIGHT, RIGHT[::-1]])
    assert judged(reply.encode(), "rest", known, images=2) == (outcome, reason)


# TensorFlow Serving's forms: an image takes a row of each output.

TF_ROWS = b'{"predictions": [{"probabilities": [0.25, 0.75], "classes": 1}]}'
TF_COLUMNS = b'{"outputs": {"probabilities": [[0.25, 0.75]], "classes": [1]}}'
TF_LABELS = b'{"predictions": [{"label": "b", "scores": [0.25, 0.75]}]}'


def tensor(values, dtype, field="float_val", shape=None):
    array = np.asarray(values)
    dims = [tfserving_pb2.TensorShape.Dim(size=size) for size in shape or array.shape]
    flat = array.ravel().tolist()
    return tfserving_pb2.Tensor(dtype=dtype, tensor_shape=tfserving_pb2.TensorShape(dim=dims), **{field: flat})


def grpc_reply(**outputs):
    return tfserving_pb2.PredictResponse(outputs=outputs).SerializeToString(deterministic=True)


FLOAT, INT64, STRING = tfserving_pb2.DT_FLOAT, tfserving_pb2.DT_INT64, tfserving_pb2.DT_STRING
TWO_OUTPUTS = grpc_reply(probabilities=tensor([RIGHT], FLOAT), classes=tensor([1], INT64, "int64_val"))
LABEL_AND_SCORES = grpc_reply(scores=tensor([RIGHT], FLOAT), label=tensor([b"b"], STRING, "string_val"))


@pytest.mark.parametrize("engine", ["tfserving", "savedmodel"])
@pytest.mark.parametrize(
    ("protocol", "body", "output"),
    [
        ("rest", TF_ROWS, "probabilities"),
        ("rest", TF_COLUMNS, "probabilities"),
        ("rest", TF_LABELS, "scores"),
        ("grpc", TWO_OUTPUTS, "probabilities"),
        ("grpc", LABEL_AND_SCORES, "scores"),
    ],
)
def test_of_several_outputs_the_model_s_own_is_checked(engine, protocol, body, output):
    assert judged(body, protocol, manifest(output=output), engine) == ("ok", "")
    assert judged(body, protocol, manifest(output=output, answers=[RIGHT[::-1]]), engine)[0] == "wrong_answer"
    assert judged(body, protocol, None, engine) == ("ok", "")
    outcome, reason = judged(body, protocol, manifest(output="logits"), engine)
    assert outcome == "bad_reply"
    assert output in reason and reason.endswith("but not 'logits'")


@pytest.mark.parametrize(
    ("protocol", "body", "answer"),
    [
        ("rest", b'{"predictions": [7]}', [7.0]),
        ("rest", b'{"predictions": [[-812.5, 30122.25]]}', [-812.5, 30122.25]),
        ("rest", b'{"predictions": [[[1, 2], [3, 4]]]}', [1, 2, 3, 4]),
        ("grpc", grpc_reply(classes=tensor([7], INT64, "int64_val")), [7]),
        ("grpc", grpc_reply(classes=tensor([7], tfserving_pb2.DT_UINT8, "int_val")), [7]),
        ("grpc", grpc_reply(score=tensor([-2.5], FLOAT)), [-2.5]),
        ("grpc", grpc_reply(map=tensor([[[1, 2], [3, 4]]], FLOAT)), [1, 2, 3, 4]),
        ("rest", b'{"predictions": [[[0.25, 0.75]]]}', RIGHT),
        ("grpc", grpc_reply(p=tensor([[RIGHT]], FLOAT)), RIGHT),
        ("grpc", grpc_reply(p=tensor([[0x3800, 0xB400]], tfserving_pb2.DT_HALF, "half_val")), [0.5, -0.25]),
        ("grpc", grpc_reply(p=tensor([[0x3F00, 0xBE80]], tfserving_pb2.DT_BFLOAT16, "half_val")), [0.5, -0.25]),
        ("grpc", grpc_reply(p=tensor([[2**64 - 2048]], tfserving_pb2.DT_UINT64, "uint64_val")), [2**64 - 2048]),
    ],
)
def test_numbers_of_any_rank_and_type_are_numbers(protocol, body, answer):
    assert judged(body, protocol, manifest(answers=[answer], output=None), "tfserving") == ("ok", "")
    other = [answer[0] + 1e6 * max(1, abs(answer[0])), *answer[1:]]
    assert judged(body, protocol, manifest(answers=[other], output=None), "tfserving")[0] == "wrong_answer"


@pytest.mark.parametrize(
    ("protocol", "body", "reason"),
    [
        ("rest", b"", "the reply is empty"),
        ("rest", b"<html>busy</html>", "the reply has neither predictions nor outputs: '<html>busy</html>'"),
        ("rest", b'{"error": "no such model"}', "the reply is an error: no such model"),
        (
            "rest",
            b'{"predictions": [[1.0], [1.0]]}',
            "the reply's predictions are not one for each image (1 sent): '{\"predictions\": [[1.0], [1.0]]}'",
        ),
        (
            "rest",
            b'{"predictions": 1}',
            "the reply's predictions are not one for each image (1 sent): '{\"predictions\": 1}'",
        ),
        ("grpc", b"\xff\xff", "the reply is not a PredictResponse"),
        ("grpc", b"", "the reply has no outputs"),
    ],
)
def test_what_no_tensorflow_serving_answers_is_a_bad_reply_though_nothing_is_known(protocol, body, reason):
    assert judged(body, protocol, None, "tfserving") == ("bad_reply", reason)


@pytest.mark.parametrize(
    "body",
    [b'{"predictions": ["tabby"]}', b'{"predictions": [{"label": "b", "scores": [0.5]}]}', b'{"predictions": [NaN]}'],
)
def test_labels_of_a_savedmodel_are_answers_where_nothing_is_known(body):
    assert judged(body, "rest", None, "tfserving") == ("ok", "")


def test_class_numbers_and_logits_are_held_apart_from_each_other():
    numbers = manifest(answers=[[20_841.0]], output=None)
    assert judged(b'{"predictions": [20842]}', "rest", numbers, "tfserving")[0] == "wrong_answer"
    logits = manifest(answers=[[30_000.0, 1.5]], output=None)
    assert judged(b'{"predictions": [[30000.02, 1.49]]}', "rest", logits, "tfserving")[0] == "ok"


@pytest.mark.parametrize("key", ["message", "type"])
def test_an_error_that_is_nested_as_deeply_as_json_may_be_is_a_bad_reply(key):
    body = b'{"code": 400, "message": "", "%s": ' % key.encode() + b"[" * 1000 + b"]" * 1000 + b"}"
    outcome, reason = judged(body, "rest")
    assert (outcome, reason) == ("bad_reply", "the reply is an error: 400 a deeply nested value")
