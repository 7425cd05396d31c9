"""`--header` of the locustfiles: it reaches the server, alone and with workers, and no value lies about afterwards."""

from __future__ import annotations

import json

import psutil
import pytest
import requests

from serving.ports import free_ports
from tests.loadtests.locust_side.locust_processes import LocustProcess, exit_code_of
from tests.loadtests.locust_side.test_distributed import cluster
from tests.loadtests.locust_side.test_locustfiles import locust, start
from tests.loadtests.locust_side.test_page import Web
from tests.source_tree import ROOT
from tests.stand_ins.gateway import gateway

TOKEN = "t0p-s3cr3t-of-a-load"
LOAD = ("--rate", 50, "--duration", 1, "--warmup", 0)
BEARER = ("--header", "Authorization=Bearer env:TOKEN")


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("TOKEN", TOKEN)


def written(folder):
    """All that lies in a folder, as one text."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).decode("latin-1")


def test_a_token_opens_an_endpoint_and_its_value_is_in_no_argument_file_or_message(tmp_path):
    arguments = []

    def watched(*command, cwd):
        process = start(*command, cwd=cwd)
        arguments.append(psutil.Process(process.pid).cmdline())
        return process

    (tmp_path / "team").write_text("vision\n")
    with gateway(TOKEN) as server:
        given = ["--host", server.url, *LOAD, *BEARER, "--header", "X-Team=file:team", "--out", tmp_path / "out"]
        code, output = locust("steady.py", *given, cwd=tmp_path, start=watched)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["engine"], summary["ok"]) == ("tfserving", 50), output
    assert code == exit_code_of(summary)
    assert server.headers_of("/v1/models/cnn:predict")["X-Team"] == "vision"
    assert TOKEN not in written(tmp_path / "out") + output + str(arguments)


def test_without_the_token_the_load_is_invalid_and_says_what_to_send(tmp_path):
    with gateway(TOKEN) as server:
        given = ["--host", server.url, *LOAD, "--engine", "tfserving", "--out", tmp_path / "out"]
        code, output = locust("steady.py", *given, cwd=tmp_path)
    (reason,) = [
        each for each in json.loads((tmp_path / "out" / "summary.json").read_text())["reasons"] if "50" in each
    ]
    assert reason.startswith("50 of 50 requests were refused authorisation (HTTP 401): send the endpoint's token")
    assert code == 4
    assert reason in output


def test_an_engine_that_cannot_be_detected_for_want_of_a_token_is_said_so(tmp_path):
    with gateway(TOKEN) as server:
        code, output = locust("steady.py", "--host", server.url, *LOAD, cwd=tmp_path)
    assert code == 3
    assert "refused authorisation (HTTP 401), so its engine cannot be detected" in output


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (f"Authorization: Bearer {TOKEN}", "--header holds no =: write NAME=VALUE"),
        ("Transfer-Encoding=chunked", "--header Transfer-Encoding is refused"),
        ("Authorization=Bearer env:NO_SUCH_VARIABLE", "env:NO_SUCH_VARIABLE, which is not set here"),
        ("X-A=file:nowhere", "nowhere, which cannot be read (No such file or directory)"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_in_one_sentence(header, sentence, tmp_path):
    given = ["--host", "http://127.0.0.1:9", "--engine", "http", *LOAD, "--header", header]
    code, output = locust("steady.py", *given, cwd=tmp_path)
    assert code == 2
    assert sentence in output
    assert TOKEN not in output
    assert "Traceback" not in output


def test_a_secret_on_the_command_line_is_sent_and_warned_of_without_its_value(tmp_path):
    with gateway(TOKEN) as server:
        given = ["--host", server.url, *LOAD, "--header", f"Authorization=Bearer {TOKEN}", "--out", tmp_path / "out"]
        _, output = locust("steady.py", *given, cwd=tmp_path)
    assert server.headers_of("/v1/models/cnn:predict")["Authorization"] == f"Bearer {TOKEN}"
    assert "--header Authorization has its value on the command line" in output
    assert TOKEN not in output + written(tmp_path / "out")


def test_workers_send_them_too_and_read_the_values_where_they_run(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "token").write_text(TOKEN)
    arguments = []
    with gateway(TOKEN) as server:
        given = ["--host", server.url, "--engine", "tfserving", *LOAD, "--header", "Authorization=Bearer file:token"]
        given += ["--header", "X-Trace=env:TOKEN", "--out", tmp_path / "out"]
        with cluster(2, *given, cwd=tmp_path, worker_cwd=tmp_path / "elsewhere") as (master, workers):
            arguments = [psutil.Process(process.pid).cmdline() for process in (master, *workers)]
            output, _ = master.communicate(timeout=300)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["ok"] == summary["sent"] > 0, output
    assert summary["workers"] == 2
    assert all(headers["X-Trace"] == TOKEN for _, _, headers in server.asked)
    assert TOKEN not in str(arguments) + output + written(tmp_path / "out")


def test_a_worker_that_lacks_the_value_ends_the_load_with_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "token").write_text(TOKEN)
    with gateway(TOKEN) as server:
        given = ["--host", server.url, "--engine", "tfserving", *LOAD, *BEARER]
        with cluster(1, *given, cwd=tmp_path, worker_locust=("-c", WITHOUT_TOKEN)) as (master, _):
            output, _ = master.communicate(timeout=300)
    assert "--header Authorization refers to env:TOKEN, which is not set here" in output
    assert master.returncode == 2
    assert TOKEN not in output
    assert server.asked == []


WITHOUT_TOKEN = "import os, sys; del os.environ['TOKEN']; from locust.main import main; main()"


def test_a_form_cannot_send_them_to_another_server_nor_name_a_file(tmp_path):
    (port,) = free_ports(1)
    (tmp_path / "private").write_text("private")
    with gateway() as server, gateway() as other:
        command = ["-m", "locust", "-f", str(ROOT / "loadtests" / "steady.py"), "--web-port", str(port), *BEARER]
        command += ["--host", server.url, "--engine", "tfserving", *map(str, LOAD)]
        process = LocustProcess(command, tmp_path)
        try:
            page = Web(port, server.url.rpartition(":")[2], process)
            _until_it_answers(page)
            page.start(host=other.url)
            assert "--header is sent only where the command line says" in page.wait_for("refused")["refusal"]
            page.start(header=f"X-File=file:{tmp_path / 'private'}")
            page.wait_for("ended")
            shown = page.get("/").text
        finally:
            process.kill()
            process.communicate()
    assert other.asked == []
    sent = server.headers_of("/v1/models/cnn:predict")
    assert sent["Authorization"] == f"Bearer {TOKEN}"
    assert "X-File" not in sent
    assert TOKEN not in shown


def _until_it_answers(page):
    for _ in range(600):
        try:
            page.get("/worker-count")
            return
        except requests.ConnectionError:
            assert page.process.poll() is None
    raise AssertionError("Locust's page does not answer")


@pytest.mark.parametrize("before", [0, 100])
def test_a_token_that_an_answer_repeats_is_in_no_file_and_no_message(tmp_path, before):
    """A gateway may name the token that it refuses; the reason of a failure quotes the answer, and may cut it."""
    answer = json.dumps({"error": "x" * before + f" token {TOKEN} has expired"}).encode()
    with gateway("another", (200, answer)) as server:
        given = ["--host", server.url, *LOAD, *BEARER, "--engine", "tfserving", "--out", tmp_path / "out"]
        code, output = locust("steady.py", *given, cwd=tmp_path)
    assert code == 4
    ((reason, count),) = json.loads((tmp_path / "out" / "summary.json").read_text())["error_details"].items()
    assert count == 50 and " token ..." in reason
    assert TOKEN[:9] not in written(tmp_path / "out") + output
