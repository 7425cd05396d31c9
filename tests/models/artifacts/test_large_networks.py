"""Large networks are exported step by step in processes of their own, and keep their weights outside the graph."""

import os

import numpy as np
import pytest

from models.artifacts import own_process, served_network
from models.artifacts.export import export_model
from models.artifacts.own_process import run_step
from models.artifacts.savedmodel import predict_images, write_savedmodel
from models.artifacts.source import of_training
from models.errors import ModelEnvironmentError, ParityError

LARGE = own_process.LARGE_BYTES + 1


def own_pid(answer):
    return os.getpid(), answer


def refuse():
    raise ParityError("they differ")


def die():
    os._exit(9)


def test_a_step_of_a_large_network_has_a_process_of_its_own():
    pid, answer = run_step(LARGE, "torch", own_pid, "done")
    assert answer == "done" and pid != os.getpid()
    assert run_step(LARGE - 1, "torch", own_pid, answer="done") == (os.getpid(), "done")


def test_what_a_step_raises_is_raised_here():
    with pytest.raises(ParityError, match=r"^they differ$"):
        run_step(LARGE, "torch", refuse)


def test_a_step_that_is_killed_is_one_sentence():
    with pytest.raises(ModelEnvironmentError, match="was killed"):
        run_step(LARGE, "torch", die)


def test_an_export_step_by_step_is_the_same_model(few_digits, weights_dir, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(own_process, "LARGE_BYTES", 0)
    model = export_model("tiny", weights_dir, few_digits, tmp_path)
    assert model.manifest.parity.status == "proved"
    here, before = (one.manifest.golden for one in (model, exported))
    np.testing.assert_allclose([g.probabilities for g in here], [g.probabilities for g in before], rtol=0, atol=1e-6)


def test_large_weights_are_variables_beside_the_graph(few_digits, weights_dir, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(served_network, "MOST_CONSTANTS_BYTES", 0)
    source, images = of_training(weights_dir, "keras"), few_digits.test.images[:8]
    write_savedmodel(source, tmp_path / "1", images[0], "tiny")
    graph, weights = (tmp_path / "1" / name for name in ("saved_model.pb", "variables/variables.data-00000-of-00001"))
    assert graph.stat().st_size < 500_000 < source.weights_bytes < weights.stat().st_size * 1.01
    as_constants = exported.path / "1" / "saved_model.pb"
    assert as_constants.stat().st_size > 0.9 * source.weights_bytes
    answers = predict_images(tmp_path / "1", images)
    np.testing.assert_allclose(answers, predict_images(exported.path / "1", images), rtol=0, atol=1e-6)
