"""A command in a pod ends with what it printed and its exit code, or nobody knows how it ended."""

from __future__ import annotations

import os

import pytest

from serving.backends.kubernetes.cluster import Cluster
from serving.backends.kubernetes.execute import Executed, NotExecuted, execute
from tests.stand_ins.exec_api import STDERR, STDOUT, exec_api, failure, success


def cluster(api, token=None):
    """A cluster at this address, as `connect` would make it."""
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration(host=api.url)
    if token:
        configuration.api_key = {"BearerToken": f"Bearer {token}"}
    return Cluster(ApiClient(configuration), "test", "1.32.13")


def run(api, *command, timeout_s=5.0, token=None):
    return execute(cluster(api, token), "k3", "agent-0", "agent", command or ["true"], timeout_s)


def test_a_command_is_asked_for_in_the_container_with_its_words_and_the_account_s_token():
    with exec_api(success()) as api:
        assert run(api, "sh", "-c", "echo 'a b' $X", token="secret") == Executed(0, b"", "")
    ((path, query, headers),) = api.asked
    assert path == "/api/v1/namespaces/k3/pods/agent-0/exec"
    assert query["command"] == ["sh", "-c", "echo 'a b' $X"]
    assert query["container"] == ["agent"]
    asked = {name: query[name][0].lower() for name in ("stdin", "stdout", "stderr", "tty")}
    assert asked == {"stdin": "false", "stdout": "true", "stderr": "true", "tty": "false"}
    assert headers["authorization"] == "Bearer secret"


def test_what_is_printed_comes_back_byte_for_byte():
    whole = os.urandom(300_000)
    frames = [(STDOUT, whole[begin : begin + 40_000]) for begin in range(0, len(whole), 40_000)]
    with exec_api(*frames, (STDERR, b"a word\n"), success()) as api:
        done = run(api)
    assert done.out == whole
    assert (done.code, done.err) == (0, "a word")


def test_an_exit_code_is_told():
    with exec_api((STDOUT, b"no\n"), failure(4)) as api:
        assert run(api) == Executed(4, b"no\n", "")


@pytest.mark.parametrize("ending", ["close", "cut"])
def test_a_stream_that_ends_before_the_command_does_is_told(ending):
    with (
        exec_api((STDOUT, b"half of"), ending=ending) as api,
        pytest.raises(NotExecuted, match=r"agent-0 .* (ended|broke)"),
    ):
        run(api)


def test_a_command_that_takes_too_long_is_not_waited_for():
    hanging = exec_api((STDOUT, b"still"), ending="hang")
    with hanging as api, pytest.raises(NotExecuted, match="agent-0 in namespace k3 was still busy after 0 s"):
        run(api, timeout_s=0.3)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, r"may not run a command in pod agent-0 .* verbs get and create on pods/exec, see deploy/k8s/role\.yaml"),
        (404, r"no command can be run in pod agent-0 in namespace k3: pods \"agent-0\" are no more\.$"),
        (500, r"no command can be run in pod agent-0 in namespace k3: pods \"agent-0\" are no more\.$"),
    ],
)
def test_what_the_api_refuses_is_said(status, sentence):
    with exec_api(status=status) as api, pytest.raises(NotExecuted, match=sentence):
        run(api)


def test_a_command_that_cannot_be_started_is_told_from_one_that_failed():
    told = (
        b'{"status": "Failure", "message": "exec: \\"sh\\": executable file not found in $PATH", "reason": "Internal"}'
    )
    with exec_api((3, told)) as api, pytest.raises(NotExecuted, match=r'agent-0 .*: exec: "sh": executable file not'):
        run(api)


def test_an_api_server_that_is_not_there_is_told():
    with exec_api() as api:
        pass
    with pytest.raises(NotExecuted, match="no command can be run in pod agent-0"):
        run(api)


def test_ctrl_c_stays_ctrl_c_while_a_command_is_begun(monkeypatch):
    from kubernetes.stream import ws_client

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ws_client, "create_websocket", interrupted)
    with exec_api() as api, pytest.raises(KeyboardInterrupt):
        run(api)
