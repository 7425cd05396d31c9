"""One torch network, trained by several processes: the same as by one, counted as a whole, and ended as a whole."""

from __future__ import annotations

import os
import signal

import numpy as np
import psutil
import pytest
import torch

from models.datasets.synthetic import load_synthetic
from models.errors import ModelEnvironmentError, ModelError
from models.manifest import InputSpec
from models.training.data_parallel import Place
from models.training.learner import LearnerOrder, StepOptions
from models.training.torch_learner import TorchLearner
from models.training.train import learn, require_possible
from tests.stand_ins.linear_network import LinearNetwork

SPEC = InputSpec(height=8, width=8, mean=[0.5] * 3, std=[0.5] * 3)
TWO = StepOptions(processes=2)


def data(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 8, 8, 3)).astype(np.float32), rng.integers(0, 4, count)


@pytest.fixture
def learner():
    """Of a linear network in batches of 10, by processes; all are closed at the end."""
    made = []

    def make(processes):
        order = LearnerOrder(LinearNetwork(), SPEC, 4, 7, 10, options=StepOptions(processes=processes))
        made.append(TorchLearner(order))
        return made[-1]

    yield make
    for one in made:
        one.close()


def weights(one):
    return one.network[1].weight.detach().numpy().copy()


@pytest.mark.parametrize(
    "count", [pytest.param(40, id="whole batches"), pytest.param(37, id="a batch that does not halve")]
)
def test_two_processes_learn_what_one_learns(learner, count):
    images, labels = data(count)
    alone, together = learner(1), learner(2)
    begin = weights(alone)
    for _ in range(2):
        losses = [one.epoch(images, labels, 0.01, lambda _share: None) for one in (alone, together)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    np.testing.assert_allclose(weights(together), weights(alone), atol=1e-5)
    assert np.abs(weights(alone) - begin).max() > 0.01


@pytest.mark.parametrize(("images", "processes"), [(10, 2), (7, 2), (11, 4), (32, 5)])
def test_the_parts_of_a_batch_are_the_batch_and_weigh_as_their_images(images, processes):
    batch = torch.randperm(images)
    parts = [Place(rank, processes).part(batch) for rank in range(processes)]
    assert sorted(torch.cat([part for part, _ in parts]).tolist()) == list(range(images))
    sizes = [len(part) for part, _ in parts]
    assert max(sizes) - min(sizes) <= 1
    values = torch.rand(images, dtype=torch.float64)
    mean = sum(weight * values[part].mean() for part, weight in parts) / processes
    assert float(mean) == pytest.approx(float(values.mean()))


def test_a_training_counts_all_of_its_processes_and_leaves_none():
    pictures = load_synthetic((16, 16), classes=3, images=300)
    pids = []

    class Turn:
        def __init__(self, _epoch):
            children = psutil.Process().children(recursive=True)
            pids.extend(child.pid for child in children if "spawn_main" in " ".join(child.cmdline()))

        def __enter__(self):
            return None

        def __exit__(self, *_):
            return None

    learnt = learn("torch", pictures, epochs=2, options=TWO, turn=Turn)
    record = learnt.record
    assert record.processes == 2 and record.top1 > 0.6  # of three classes
    assert pids and not any(psutil.pid_exists(pid) for pid in pids)
    own = psutil.Process().memory_info().rss
    assert max(sample.rss_bytes for sample in record.use.samples) > own + (100 << 20)  # torch alone takes more
    assert learnt.answers.shape == (60, 3)


def test_a_process_that_is_killed_is_told_with_a_remedy(learner):
    images, labels = data(4000)
    together = learner(2)
    ticks = []

    def kill_in_the_middle(share):
        ticks.append(share)
        if len(ticks) == 20:
            os.kill(together.helpers[0], signal.SIGKILL)

    with pytest.raises(ModelEnvironmentError, match="One of the 2 processes that train together was killed") as caught:
        together.epoch(images, labels, 0.01, kill_in_the_middle)
    assert "fewer processes" in str(caught.value)


def test_a_fault_in_another_process_is_told_with_its_words(learner):
    images, labels = data(40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(7))
    labels[order[1]] = 99  # of the second process's part of the first batch, and no class
    with pytest.raises(RuntimeError) as caught:
        learner(2).epoch(images, labels, 0.01, lambda _share: None)
    assert any("IndexError: Target 99 is out of bounds" in note for note in caught.value.__notes__)


def test_a_training_one_of_whose_processes_is_killed_ends_with_that_reason_and_leaves_none(capfd):
    killed = []

    def kill(what, _share):
        if "epoch" in what and not killed:
            children = psutil.Process().children()
            killed.extend(child for child in children if "spawn_main" in " ".join(child.cmdline()))
            killed[-1].kill()

    with pytest.raises(ModelEnvironmentError, match="One of the 3 processes that train together was killed"):
        learn(
            "torch",
            load_synthetic((16, 16), classes=3, images=300),
            epochs=2,
            progress=kill,
            options=StepOptions(processes=3),
        )
    assert len(killed) == 2 and not any(child.is_running() for child in killed)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("framework", "options", "batch_size", "told"),
    [
        ("keras", TWO, 32, r"fit refuses TensorFlow's MultiWorkerMirroredStrategy \(Keras 3\.15\.1"),
        ("torch", StepOptions(processes=2, compiled=True), 32, "without torch.compile: leave the other out"),
        ("torch", StepOptions(processes=2, device="gpu"), 32, "without a GPU: leave the other out"),
        ("torch", StepOptions(processes=4), 7, "ask for 8 or more"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(framework, options, batch_size, told):
    with pytest.raises(ModelError, match=told):
        require_possible(framework, options, batch_size)


def test_too_few_images_for_the_processes_are_told():
    pictures = load_synthetic((16, 16), classes=3, images=300)
    with pytest.raises(ModelError, match="240 training images are too few for 128 processes: give 256 or more"):
        learn("torch", pictures, batch_size=256, options=StepOptions(processes=128))
