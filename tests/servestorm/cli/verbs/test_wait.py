"""`servestorm wait`: returns when a server answers for its model, and says what it lacks where it does not in time."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from servestorm.cli.main import main
from tests.stand_ins.gateway import INVALID_KEY, gateway


@pytest.fixture
def server():
    """An HTTP server that gives `answers[path]` as (status, body), the last of a list again and again."""
    answers: dict[str, list[tuple[int, str]]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            left = answers.get(self.path, [(404, "")])
            status, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", answers
    http.shutdown()
    http.server_close()


def status(state: str) -> tuple[int, str]:
    return 200, f'{{"model_version_status": [{{"version": "1", "state": "{state}"}}]}}'


def test_tensorflow_serving_is_ready_when_its_model_is_available(server, capsys):
    url, answers = server
    answers["/v1/models/cnn"] = [status("LOADING"), status("AVAILABLE")]
    assert main(["wait", f"{url}/"]) == 0
    assert capsys.readouterr().out.startswith(f"{url} answers for cnn after ")


def test_torchserve_is_ready_when_a_worker_takes_requests_and_not_when_its_ping_is_healthy(server):
    url, answers = server
    answers["/ping"] = [(200, '{"status": "Healthy"}')]
    answers["/predictions/mine"] = [(404, ""), (503, ""), (400, "no picture for this model")]
    assert main(["wait", url, "--model", "mine"]) == 0
    assert answers["/predictions/mine"] == [(400, "no picture for this model")]


@pytest.mark.parametrize(
    ("answers_of", "lacks"),
    [
        ({}, "it is neither TensorFlow Serving with a model cnn nor TorchServe"),
        ({"/v1/models/cnn": [status("LOADING")]}, "the model cnn is being loaded"),
        ({"/ping": [(200, '{"status": "Healthy"}')]}, "TorchServe has no worker for cnn"),
    ],
)
def test_what_a_server_lacks_is_said_when_the_time_is_over(server, answers_of, lacks, capsys):
    url, answers = server
    answers.update(answers_of)
    assert main(["wait", url, "--timeout", "0.01"]) == 3
    assert f"is not ready after 0.01 s ({lacks})" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_said_to_refuse(capsys):
    assert main(["wait", "127.0.0.1:1", "--timeout", "0.01"]) == 3
    assert "http://127.0.0.1:1 is not ready after 0.01 s (connection refused)" in capsys.readouterr().err


def test_a_server_without_tls_is_not_said_to_be_absent(server, capsys):
    url, _ = server
    assert main(["wait", url.replace("http:", "https:"), "--timeout", "0.01"]) == 3
    assert "it does not speak TLS)" in capsys.readouterr().err


def test_an_address_may_lack_its_scheme_and_end_with_a_slash(server, capsys):
    url, answers = server
    answers["/v1/models/cnn"] = [status("AVAILABLE")]
    assert main(["wait", f"{url.removeprefix('http://')}/", "--timeout", "5"]) == 0
    assert capsys.readouterr().out.startswith(f"{url} answers for cnn")


@pytest.mark.parametrize("wrong", ["ftp://a", "http://", "http://a/path", "http://user:secret@a"])
def test_what_is_no_address_is_refused_in_a_sentence(wrong, capsys):
    assert main(["wait", wrong]) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("servestorm: ")
    assert "secret" not in sentence


BEARER = ("--header", "Authorization=Bearer env:TOKEN")


@pytest.mark.parametrize("refusal", [(401, b""), (403, b""), (400, INVALID_KEY)])
def test_an_endpoint_that_asks_for_a_token_says_so_and_answers_to_it(refusal, capsys, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cr3t")
    with gateway("s3cr3t", refusal) as server:
        assert main(["wait", server.url, "--timeout", "0.01"]) == 3
        sentence = capsys.readouterr().err
        assert f"(refused authorisation (HTTP {refusal[0]})): send the endpoint's token, such as --header" in sentence
        assert main(["wait", server.url, *BEARER, "--header", "Host=models.example", "--timeout", "5"]) == 0
    assert server.headers_of("/v1/models/cnn")["Host"] == "models.example"
    assert "s3cr3t" not in capsys.readouterr().err


def test_torchserve_that_refuses_only_predictions_is_not_ready(server, capsys):
    url, answers = server
    answers["/ping"] = [(200, '{"status": "Healthy"}')]
    answers["/predictions/cnn"] = [(403, "")]
    assert main(["wait", url, "--timeout", "0.01"]) == 3
    assert "(refused authorisation (HTTP 403))" in capsys.readouterr().err


def test_a_file_with_the_token_may_appear_while_the_server_starts(tmp_path, capsys):
    token = tmp_path / "token"
    with gateway("s3cr3t") as server:
        arguments = ["wait", server.url, "--header", f"Authorization=Bearer file:{token}"]
        assert main([*arguments, "--timeout", "0.01"]) == 3
        assert f"file:{token}, which cannot be read (No such file or directory)" in capsys.readouterr().err
        token.write_text("of the last start")
        threading.Timer(0.2, token.write_text, ["s3cr3t"]).start()
        assert main([*arguments, "--timeout", "60"]) == 0


@pytest.mark.parametrize("header", ["Authorization: Bearer s3cr3t", "Connection=close", "X-A=env:NO_SUCH_VARIABLE"])
def test_what_is_no_header_is_refused_in_a_sentence(header, capsys):
    assert main(["wait", "http://127.0.0.1:9", "--header", header]) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("servestorm: --header")
    assert "s3cr3t" not in sentence


def test_a_secret_on_the_command_line_is_warned_of(capsys):
    with gateway("s3cr3t") as server:
        assert main(["wait", server.url, "--header", "Authorization=Bearer s3cr3t", "--timeout", "5"]) == 0
    assert "--header Authorization has its value on the command line" in capsys.readouterr().err


def test_a_redirect_takes_no_header_to_another_server():
    with gateway() as other, gateway(redirect=f"{other.url}/v1/models/cnn") as server:
        assert main(["wait", server.url, "--header", "X-Api-Key=s3cr3t", "--timeout", "0.01"]) == 3
    assert other.asked == []
