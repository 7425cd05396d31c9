"""Versions load, take traffic, drain and unload; a fake loader stands in for TensorFlow."""

import threading
from dataclasses import dataclass, field

import pytest

from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.rest.rest_path import parse_path
from serving.savedmodel_server.versions.repository import (
    ModelConfig,
    Repository,
    RepositoryOptions,
    State,
    VersionPolicy,
)
from serving.savedmodel_server.versions.version_number import version_number


@dataclass(eq=False)
class FakeServable:
    name: str
    version: int
    closed: threading.Event = field(default_factory=threading.Event)

    def close(self):
        self.closed.set()


class Loader:
    def __init__(self):
        self.bad = set()
        self.loaded = []

    def __call__(self, name, version, path):
        if version in self.bad:
            raise RequestError(Code.NOT_FOUND, f"no graph in {path}")
        self.loaded.append(version)
        return FakeServable(name, version)


@pytest.fixture
def base(tmp_path):
    for number in (1, 2, 10):
        (tmp_path / str(number)).mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "3").write_text("a file, not a version")
    return tmp_path


def made(base, loader=None, policy=None, labels=None, **options):
    repository = Repository(loader or Loader(), RepositoryOptions(**{"poll_s": 0, "retry_interval_s": 0, **options}))
    repository.configure([ModelConfig("m", base, policy or VersionPolicy(), labels or {})])
    repository.poll()
    return repository


def states(repository):
    return {v.number: v.state for v in repository.states("m")}


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (VersionPolicy(), {10}),
        (VersionPolicy(latest=2), {2, 10}),
        (VersionPolicy(every=True), {1, 2, 10}),
        (VersionPolicy(specific=frozenset({1, 7})), {1}),
    ],
)
def test_the_version_policy_chooses_what_is_loaded(base, policy, served):
    assert set(states(made(base, policy=policy))) == served


def test_a_request_without_a_version_gets_the_latest_and_one_with_a_version_gets_that(base):
    repository = made(base, policy=VersionPolicy(every=True))
    with repository.acquire("m") as servable:
        assert servable.version == 10
    with repository.acquire("m", 2) as servable:
        assert servable.version == 2


@pytest.mark.parametrize(
    ("ask", "code", "text"),
    [
        (("x",), Code.NOT_FOUND, "Servable not found for request: Latest(x)"),
        (("m", 7), Code.NOT_FOUND, "Servable not found for request: Specific(m, 7)"),
        (("m", None, "nope"), Code.INVALID_ARGUMENT, "Unrecognized servable version label: nope"),
        (("",), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
    ],
)
def test_what_is_not_served_is_named_as_tensorflow_serving_names_it(base, ask, code, text):
    with pytest.raises(RequestError) as caught:
        made(base).acquire(*ask)
    assert (caught.value.code, caught.value.message) == (code, text)


def test_a_label_leads_to_its_version(base):
    repository = made(base, policy=VersionPolicy(every=True), labels={"stable": 2})
    with repository.acquire("m", label="stable") as servable:
        assert servable.version == 2


def test_a_new_version_replaces_the_old_one_only_when_its_last_request_is_done(base):
    repository = made(base)
    lease = repository.acquire("m")
    (base / "11").mkdir()
    repository.poll()
    assert states(repository) == {10: State.UNLOADING, 11: State.AVAILABLE}
    assert not lease.servable.closed.is_set()
    with repository.acquire("m") as servable:
        assert servable.version == 11
    lease.release()
    repository.poll()
    assert states(repository)[10] is State.END and lease.servable.closed.is_set()


def test_a_bad_version_is_reported_and_leaves_the_old_one_serving(base):
    loader = Loader()
    repository = made(base, loader, load_retries=1)
    loader.bad.add(11)
    (base / "11").mkdir()
    repository.poll()
    assert states(repository) == {10: State.AVAILABLE, 11: State.LOADING}
    repository.poll()
    assert states(repository) == {10: State.AVAILABLE, 11: State.END}
    failed = repository.states("m", 11)[0]
    assert failed.error.code is Code.NOT_FOUND and "no graph in" in failed.error.message
    with repository.acquire("m") as servable:
        assert servable.version == 10


def test_a_version_that_was_removed_and_comes_back_is_loaded_again(base):
    loader = Loader()
    loader.bad.add(11)
    (base / "11").mkdir()
    repository = made(base, loader, load_retries=0)
    (base / "11").rmdir()
    repository.poll()
    loader.bad.clear()
    (base / "11").mkdir()
    repository.poll()
    assert states(repository)[11] is State.AVAILABLE


def test_removing_the_latest_version_goes_back_to_the_one_before(base):
    repository = made(base)
    (base / "10").rmdir()
    repository.poll()
    assert states(repository) == {2: State.AVAILABLE, 10: State.END}


def test_an_emptied_base_path_keeps_what_is_served(base):
    repository = made(base)
    for number in (1, 2, 10):
        (base / str(number)).rmdir()
    repository.poll()
    assert states(repository) == {10: State.AVAILABLE}


def test_a_model_that_is_no_longer_configured_is_unloaded(base, tmp_path):
    repository = made(base)
    repository.configure([])
    assert repository.serving() == {}
    repository.poll()
    assert states(repository) == {10: State.END} and repository.serving() == {}
    repository.configure([ModelConfig("m", base)])
    repository.poll()
    assert repository.serving() == {"m": True}


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("1234567890123456789", 1234567890123456789),
        ("000000000000000000000000012", 12),
        ("9223372036854775808", None),
        ("٣", None),
        ("1" * 200, None),
    ],
)
def test_a_version_is_an_int64_however_it_is_written(base, name, number):
    (base / name).mkdir()
    assert set(states(made(base))) == {number or 10}
    assert version_number(name) == number


def test_a_version_of_5000_digits_is_no_number():
    assert version_number("9" * 5000) is None
    with pytest.raises(RequestError) as caught:
        parse_path("GET", f"/v1/models/m/versions/{'9' * 5000}")
    assert caught.value.code is Code.INVALID_ARGUMENT and len(caught.value.message) < 200


def test_a_reload_waits_for_its_versions_and_moves_labels_only_to_available_ones(base):
    repository = made(base, policy=VersionPolicy(every=True))
    repository.start()
    try:
        repository.reconfigure([ModelConfig("m", base, VersionPolicy(every=True), {"a": 1})], 10)
        with repository.acquire("m", label="a") as servable:
            assert servable.version == 1
        with pytest.raises(RequestError, match="not currently available") as caught:
            repository.reconfigure([ModelConfig("m", base, VersionPolicy(every=True), {"a": 99})], 10)
        assert caught.value.code is Code.FAILED_PRECONDITION
        with repository.acquire("m", label="a") as servable:
            assert servable.version == 1
    finally:
        repository.stop(5)


def test_a_missing_base_path_is_no_error_and_is_found_when_it_comes(tmp_path):
    repository = made(tmp_path / "later")
    (tmp_path / "later" / "1").mkdir(parents=True)
    repository.poll()
    assert states(repository) == {1: State.AVAILABLE}


def test_stopping_closes_every_servable_and_waits_no_longer_than_told(base):
    repository = made(base, policy=VersionPolicy(every=True))
    held = repository.acquire("m", 1)
    free = repository.acquire("m", 2)
    free.release()
    repository.stop(0.2)
    assert free.servable.closed.is_set() and not held.servable.closed.is_set()
