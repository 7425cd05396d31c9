"""What engines read back of a running server's settings."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from models.manifest import ModelDir
from serving.deployment import Batching, Budget
from serving.engines import ENGINES, model_snapshot, tensorflow_settings
from serving.errors import DeploymentError
from serving.server_settings import NAMES, OrderedSettings, differences, read, require_as_ordered, unreadable_settings

BUDGET = Budget(cpus=(0, 1), threads=3)
MANY = Batching(max_batch_size=8, timeout_us=2500, queue_size=100)
DESCRIBED = {
    "minWorkers": 2,
    "maxWorkers": 2,
    "batchSize": 4,
    "maxBatchDelay": 200,
    "responseTimeout": 120,
    "startupTimeout": 120,
    "clientTimeoutInMills": 0,
    "parallelType": "",
    "continuousBatching": False,
    "useJobTicket": False,
    "stateful": False,
    "workers": [{"id": "9000", "status": "READY"}, {"id": "9001", "status": "READY"}],
    "jobQueueStatus": {"remainingCapacity": 90, "pendingRequests": 10},
}
"""As TorchServe 0.12 describes a model whose archive overrules its configuration."""


@dataclass
class StandIn:
    """A running server as its backend sees it."""

    command: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    described: bytes | None = None

    def commands(self):
        return [["tini", "--", "run", *self.command[-1:]], self.command] if self.command else []

    def file(self, path):
        return self.files.get(path)

    def manage(self, path):
        assert path == "/models/toy"
        return self.described


def described(**changes) -> bytes:
    return json.dumps([{**DESCRIBED, **changes}]).encode()


def values(settings) -> dict[str, int | None]:
    return {name: getattr(settings, name).value for name in NAMES}


# --- TorchServe -----------------------------------------------------------------------------------------------


def test_torchserve_s_settings_are_those_that_its_management_api_describes(toy_model):
    settings = ENGINES["torchserve"].settings(StandIn(described=described()), toy_model)
    assert values(settings) == {
        "workers": 2,
        "max_batch_size": 4,
        "batch_delay_us": 200_000,
        "queue_size": 100,
        "response_timeout_s": 120,
        "threads": None,
    }
    assert settings.batch_delay_us.source == "GET /models/toy"
    assert "does not report its workers' threads" in settings.threads.reason
    assert settings.notes == ()


def test_an_archive_that_overrules_what_was_ordered_is_named_with_each_setting(toy_model):
    engine = ENGINES["torchserve"]
    settings = engine.settings(StandIn(described=described()), toy_model)
    found = differences(settings, engine.ordered(BUDGET, Batching()))
    assert found == [
        "2 workers instead of 1 (GET /models/toy)",
        "4 images in a batch instead of 1 (GET /models/toy)",
        "200,000 µs of waiting for a batch instead of 1,000 (GET /models/toy)",
        "100 requests in the queue instead of 1,000 (jobQueueStatus of GET /models/toy)",
    ]
    with pytest.raises(DeploymentError, match=r"torchserve replica 0 runs with 2 workers instead of 1 .*model-config"):
        require_as_ordered("torchserve replica 0", settings, engine.ordered(BUDGET, Batching()))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"maxWorkers": 4}, "2 to 4 workers"),
        ({"continuousBatching": True}, "continuousBatching"),
        ({"stateful": True}, "sequenceBatching"),
        ({"parallelType": "pp"}, "parallelType pp"),
        ({"clientTimeoutInMills": 250}, "250 ms"),
        ({"useJobTicket": True}, "useJobTicket"),
    ],
)
def test_what_else_an_archive_sets_is_noted(toy_model, change, note):
    settings = ENGINES["torchserve"].settings(StandIn(described=described(**change)), toy_model)
    assert any(note in text for text in settings.notes)


def test_a_job_ticket_leaves_no_queue(toy_model):
    settings = ENGINES["torchserve"].settings(StandIn(described=described(useJobTicket=True)), toy_model)
    assert settings.queue_size.value == 0
    assert len(differences(settings, OrderedSettings(queue_size=1000))) == 1


@pytest.mark.parametrize("body", [None, b"[]", b"<html>", b"[1]", b'[{"batchSize": "four"}]'])
def test_what_torchserve_does_not_say_is_unknown_with_the_reason(toy_model, body):
    settings = ENGINES["torchserve"].settings(StandIn(described=body), toy_model)
    assert set(values(settings).values()) == {None}
    assert all(getattr(settings, name).reason for name in NAMES)
    assert differences(settings, ENGINES["torchserve"].ordered(BUDGET, MANY)) == []


def test_torchserve_s_delays_are_ordered_in_whole_milliseconds():
    assert model_snapshot.ordered(BUDGET, MANY).batch_delay_us == 3000
    assert model_snapshot.ordered(BUDGET, Batching()).batch_delay_us == 1000


# --- TensorFlow Serving and the embedded server -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["tfserving", "savedmodel"])
@pytest.mark.parametrize("batching", [Batching(), MANY], ids=["unbatched", "batched"])
def test_the_flags_that_a_server_is_started_with_are_what_is_read_back(toy_model, tmp_path, name, batching):
    launch = ENGINES["savedmodel"].launch(toy_model, 0, BUDGET, batching, tmp_path, None)
    files = {str(path): path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    settings = ENGINES[name].settings(StandIn([*launch.command], files), toy_model)
    ordered = ENGINES[name].ordered(BUDGET, batching)
    assert differences(settings, ordered) == []
    expected = {"workers": 1, "max_batch_size": 8, "batch_delay_us": 2500, "queue_size": 96, "threads": 3}
    alone = dict.fromkeys(NAMES) | {"max_batch_size": 1, "threads": 3}
    assert values(settings) == (alone if batching == Batching() else dict.fromkeys(NAMES) | expected)
    assert {known: value for known, value in vars(ordered).items() if value is not None} == {
        known: value for known, value in values(settings).items() if value is not None
    }


def test_the_last_flag_of_a_name_wins_in_either_form():
    command = ["server", "--a=1", "--a", "2", "--b", "--c=x=y", "-d=4", "word"]
    assert tensorflow_settings.flags_of(command) == {"a": "2", "b": "true", "c": "x=y", "d": "4"}


def test_a_batching_file_of_somebody_else_s_is_read_too(toy_model):
    text = "max_batch_size: { value: 32 } # of 64\nbatch_timeout_micros { value: 200 }\nnum_batch_threads { value : 4 }"
    command = ["s", "--enable_batching", "--batching_parameters_file=/b", "--tensorflow_session_parallelism=2"]
    settings = ENGINES["tfserving"].settings(StandIn(command, {"/b": text}), toy_model)
    assert values(settings) | {"queue_size": 0} == {
        "workers": 4,
        "max_batch_size": 32,
        "batch_delay_us": 200,
        "queue_size": 0,
        "response_timeout_s": None,
        "threads": 2,
    }
    assert settings.queue_size.reason == "the file of --batching_parameters_file does not set max_enqueued_batches"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ([], "command line cannot be seen"),
        (["s", "--port=1", "--platform_config_file=/p"], "--platform_config_file takes the place"),
        (["s", "--enable_batching=true", "--batching_parameters_file=/gone"], "cannot be read from here"),
        (["s", "--enable_batching=true"], "the server's own defaults"),
        (
            ["s", "--enable_batching=true", "--enable_per_model_batching_parameters=true"],
            "batching_params.pbtxt of the SavedModel may say otherwise",
        ),
    ],
)
def test_what_flags_do_not_say_is_unknown_with_the_reason(toy_model, command, reason):
    settings = ENGINES["tfserving"].settings(StandIn(command), toy_model)
    assert settings.max_batch_size.value is None
    assert reason in settings.max_batch_size.reason


def test_a_graph_that_batches_itself_is_noted(toy_model):
    (toy_model.path / "1" / "saved_model.pb").write_bytes(b"...BatchFunction...")
    settings = ENGINES["tfserving"].settings(StandIn(["s", "--port=1"]), ModelDir(toy_model.path))
    assert any("BatchFunction" in note for note in settings.notes)


def test_operations_side_by_side_are_noted(toy_model):
    settings = ENGINES["tfserving"].settings(StandIn(["s", "--tensorflow_inter_op_parallelism=4"]), toy_model)
    assert settings.notes == ("TensorFlow runs 4 operations at a time.",)


# --- both -------------------------------------------------------------------------------------------------------


def test_only_what_is_known_and_was_ordered_can_differ():
    unknown = unreadable_settings("nobody says it")
    assert differences(unknown, OrderedSettings(workers=1)) == []
    known = unknown.__class__(**{**vars(unknown), "workers": read(2, "here")})
    assert differences(known, OrderedSettings()) == []
    assert differences(known, OrderedSettings(workers=2)) == []
    assert differences(known, OrderedSettings(workers=1)) == ["2 workers instead of 1 (here)"]
