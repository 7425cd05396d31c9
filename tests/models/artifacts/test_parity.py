"""Parity is claimed for outputs that are close, finite, of one shape, and many."""

import ast
import json

import numpy as np
import pytest

from models.answers import AnswerNames
from models.artifacts.handler.run import HandlerFailed, probabilities
from models.artifacts.parity import judge, parity_images
from models.errors import ModelError
from tests.models.artifacts.reply_forms import LABELS, OUTPUT, READ, RIGHT


def outputs(count=256, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(4), count)


def test_equal_outputs_on_256_images_are_proved():
    parity = judge(outputs(), outputs())
    assert (parity.status, parity.max_abs_difference, parity.reason) == ("proved", 0.0, None)


def test_one_value_over_the_tolerance_is_enough_to_refuse():
    other = outputs()
    other[100, 2] += 1.2e-5
    parity = judge(outputs(), other)
    assert parity.status == "NOT PROVED EQUAL"
    assert parity.max_abs_difference == pytest.approx(1.2e-5)
    assert "1.20e-05 on 256 images, over 1e-05" in parity.reason
    assert judge(outputs(), other, tolerance=2e-5).status == "proved"


def test_agreement_on_fewer_images_is_no_proof():
    parity = judge(outputs(255), outputs(255))
    assert parity.status == "NOT PROVED EQUAL"
    assert parity.max_abs_difference == 0
    assert "255 images" in parity.reason and "256" in parity.reason


def test_outputs_of_another_shape_or_not_finite_are_no_proof():
    assert "different shapes" in judge(outputs(), outputs()[:, :3]).reason
    broken = outputs()
    broken[0, 0] = np.nan
    parity = judge(broken, broken)
    assert (parity.status, parity.max_abs_difference) == ("NOT PROVED EQUAL", None)
    assert "finite" in parity.reason


def test_held_out_images_come_first_and_training_images_fill_up():
    test, train = [b"t%d" % i for i in range(100)], [b"l%d" % i for i in range(1000)]
    images = parity_images(test, train)
    assert (len(images), images[:100]) == (256, test)
    assert len(parity_images([b""] * 2000, train)) == 512
    with pytest.raises(ModelError, match="150 images"):
        parity_images(test, train[:50])


# what a handler may answer


def reply(value, status=200):
    return {"status": status, "body": json.dumps(value).encode()}


@pytest.mark.parametrize("form", READ)
def test_replies_of_every_known_form_are_understood(form):
    value = ast.literal_eval(READ[form])
    body = (
        value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else json.dumps(value).encode()
    )
    replies = [{"status": 200, "body": body}] * 2
    np.testing.assert_array_equal(probabilities(replies, AnswerNames(LABELS, OUTPUT)), [RIGHT] * 2)


@pytest.mark.parametrize(
    ("replies", "labels", "sentence"),
    [
        ([reply("cat")], (), "a text and not numbers: 'cat'"),
        ([reply([])], (), "holds no numbers"),
        ([reply(["a", "b"])], (), "not numbers"),
        ([reply({"a": 1.0})], (), "labels are not known"),
        ([reply({"a": 1.0})], ("a", "b"), "leaves out 'b'"),
        ([reply([1.0]), reply([0.5, 0.5])], (), "differ in length"),
        ([reply({"code": 400}, status=400)], (), "status 400"),
    ],
)
def test_other_replies_are_refused(replies, labels, sentence):
    with pytest.raises(HandlerFailed, match=sentence):
        probabilities(replies, AnswerNames(labels))


def test_logits_that_differ_by_what_float32_rounds_are_proved_equal():
    logits = 1e4 * outputs()
    assert judge(logits, logits.astype(np.float32).astype(np.float64)).status == "proved"
    assert judge(logits, logits + 0.5).status == "NOT PROVED EQUAL"
    classes = np.arange(256.0)[:, None]
    assert judge(classes, classes + 1).status == "NOT PROVED EQUAL"
