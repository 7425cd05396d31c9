"""CPU sets: who gets which core, and what the result must say where cores are few."""

from __future__ import annotations

import os

import pytest

from servestorm.errors import StudyError
from servestorm.plan.study_plan import parse_plan
from servestorm.study.cores import assign, pinned


def plan(more: str = ""):
    return parse_plan("name: a\nengines: [savedmodel]\n" + more, "plan")


SCALING = "scaling: {replicas: [1, 2], duration_s: 1}\n"


def test_two_cores_are_shared_out_and_the_result_says_that_replicas_share_one():
    cores = assign(plan(SCALING), {0, 1})
    assert (cores.engine, cores.generator) == ((0,), (1,))
    assert "2 replicas share core 0" in " ".join(cores.notes)


def test_enough_cores_need_no_words():
    cores = assign(plan(SCALING), {0, 1, 2, 3})
    assert (cores.engine, cores.generator, cores.notes) == ((0, 1), (2, 3), ())


def test_one_core_is_shared_by_all_and_the_result_says_so():
    cores = assign(plan(), {5})
    assert cores.engine == cores.generator == (5,)
    assert "share core 5" in cores.notes[0]


def test_threads_count_as_wanted_cores():
    assert assign(plan("threads: 3\n"), set(range(8))).engine == (0, 1, 2)


def test_a_core_that_is_not_there_is_named():
    with pytest.raises(StudyError, match="cpus names core 9"):
        assign(plan("cpus: {engine: [0], generator: [9]}\n"), {0, 1})


def test_pinned_is_for_the_block_only():
    before = os.sched_getaffinity(0)
    one = min(before)
    with pinned((one,)):
        assert os.sched_getaffinity(0) == {one}
    assert os.sched_getaffinity(0) == before
