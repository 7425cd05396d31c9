"""Versions load, take traffic, drain and unload; a fake loader stands in for TensorFlow."""

import threading
from dataclasses import dataclass, field

import pytest

from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.rest.rest_path import parse_path
from serving.savedmodel_server.versions.model_versions import ModelConfig, State, VersionPolicy
from serving.savedmodel_server.versions.repository import Repository, RepositoryOptions
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


def test_an_emptied_base_path_unloads_what_is_served(base):
    repository = made(base)
    for number in (1, 2, 10):
        (base / str(number)).rmdir()
    repository.poll()
    assert states(repository) == {10: State.END}
    with pytest.raises(RequestError, match="Servable not found"):
        repository.acquire("m")


def test_a_base_path_that_is_gone_keeps_what_is_served(base):
    repository = made(base)
    base.rename(base.with_name("elsewhere"))
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


EVERY = VersionPolicy(every=True)


@pytest.fixture
def running(base):
    """Starts a repository of all versions, whose thread looks for them."""
    started = []

    def start(labels=None, loader=None, **options):
        repository = made(base, loader, EVERY, labels, **options)
        repository.start()
        started.append(repository)
        return repository

    yield start
    for repository in started:
        repository.stop(5)


def labelled(repository, label):
    with repository.acquire("m", label=label) as servable:
        return servable.version


def test_a_reload_moves_labels_to_versions_that_are_available(base, running):
    repository = running()
    repository.reconfigure([ModelConfig("m", base, EVERY, {"a": 1})], 10)
    assert labelled(repository, "a") == 1
    repository.reconfigure([ModelConfig("m", base, EVERY, {"a": 2, "b": 10})], 10)
    assert (labelled(repository, "a"), labelled(repository, "b")) == (2, 10)


@pytest.mark.parametrize("number", [11, 99])
def test_a_label_on_a_version_that_is_not_available_yet_is_refused_and_nothing_changes(base, running, number):
    repository = running({"a": 1})
    (base / "11").mkdir()  # which the reload would find
    elsewhere = ModelConfig("n", base, EVERY)
    with pytest.raises(RequestError) as caught:
        repository.reconfigure([ModelConfig("m", base, EVERY, {"a": number}), elsewhere], 10)
    text = f"Request to assign label to version {number} of model m, which is not currently available for inference"
    assert (caught.value.code, caught.value.message) == (Code.FAILED_PRECONDITION, text)
    assert labelled(repository, "a") == 1 and repository.serving() == {"m": True}


def test_a_flag_allows_a_new_label_for_what_is_not_available_but_moves_none_there(base, running):
    repository = running({"a": 1}, labels_for_unavailable=True)
    repository.reconfigure([ModelConfig("m", base, EVERY, {"a": 1, "new": 99})], 10)
    with pytest.raises(RequestError, match=r"Specific\(m, 99\)"):
        repository.acquire("m", label="new")
    with pytest.raises(RequestError, match="not currently available"):
        repository.reconfigure([ModelConfig("m", base, EVERY, {"a": 99})], 10)
    assert labelled(repository, "a") == 1


def test_a_reload_ends_when_its_new_models_have_loaded_after_all(base, running):
    loader = Loader()
    failures = [RequestError(Code.NOT_FOUND, "not yet")]

    def load(name, version, path):
        if name == "n" and failures:
            raise failures.pop()
        return loader(name, version, path)

    repository = running(loader=load, load_retries=1)
    repository.reconfigure([ModelConfig("m", base, EVERY), ModelConfig("n", base, VersionPolicy())], 10)
    assert repository.serving() == {"m": True, "n": True} and not failures


def test_a_reload_says_which_new_models_do_not_load(base, running):
    loader = Loader()
    repository = running(loader=loader, load_retries=0)
    loader.bad.add(10)
    with pytest.raises(RequestError) as caught:
        repository.reconfigure([ModelConfig("m", base, EVERY), ModelConfig("n", base, VersionPolicy())], 10)
    text = f"{{{{name: n version: 10}} due to error: NOT_FOUND: no graph in {base / '10'}}}, "
    assert caught.value.code is Code.UNKNOWN
    assert caught.value.message == f"1 model(s) did not become available: {{{text}}}"
    assert repository.serving() == {"m": True, "n": False}


def test_a_reload_with_a_model_that_has_no_version_ends(base, running, tmp_path):
    repository = running()
    empty = [ModelConfig("a", tmp_path / "nowhere"), ModelConfig("b", base, VersionPolicy(specific=frozenset()))]
    repository.reconfigure([ModelConfig("m", base, EVERY), *empty], 10)
    assert repository.serving() == {"m": True, "a": False, "b": False}


def test_a_server_that_stops_ends_a_reload(base):
    repository = made(base)  # without its thread: nothing loads
    ended = []

    def reload():
        with pytest.raises(RequestError) as caught:
            repository.reconfigure([ModelConfig("m", base), ModelConfig("n", base)], 60)
        ended.append(caught.value.code)

    waiting = threading.Thread(target=reload)
    waiting.start()
    repository.stop(5)
    waiting.join(30)
    assert ended == [Code.UNAVAILABLE]


def test_a_path_with_a_nul_is_no_folder(base):
    repository = made(base.with_name("a\0b"))
    assert repository.serving() == {"m": False}


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
