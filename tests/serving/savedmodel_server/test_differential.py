"""The differential runner finds what differs between servers; savedmodel-server answers as a recorded real one does."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

import grpc
import pytest

from benchmarks.savedmodel_server import differential, recording
from benchmarks.savedmodel_server.answer_values import difference, json_value, stricter
from benchmarks.savedmodel_server.asking import Address, Answer, Request, ask_all
from benchmarks.savedmodel_server.grammar.draws import draw
from serving.ports import free_ports
from tests.source_tree import ROOT

RECORDED = ROOT / "benchmarks" / "savedmodel_server" / "recorded" / "tfserving-2.20.0.jsonl.gz"
NO_GRPC = ["--over", "rest", "raw"]
JSON = "application/json"
GOOD = (200, JSON, b'{"predictions": [2.0, NaN]}')


def address(server):
    return Address(server.url, server.target)


def differing(findings):
    """(kind of request, what differs, numbers) of each group."""
    return [(kind, what, [r.number for r, _, _ in found]) for (kind, what), found in findings.differing.items()]


# the recorded TensorFlow Serving


@pytest.mark.system
def test_all_recorded_requests_are_answered_as_by_the_real_server(server):
    _, lines = recording.read(RECORDED)
    findings = differential.compare(differential.replay(address(server), list(lines)))
    assert findings.count == 14_469
    assert [(kind, what, numbers[:3]) for kind, what, numbers in differing(findings)] == []
    assert findings.faults == []


@pytest.mark.system
def test_a_recorded_value_that_is_another_is_found(server):
    _, lines = recording.read(RECORDED)
    request, answer = next(line for line in lines if line[1].status == "200")
    wrong = Answer("200", JSON, answer.body.replace(b"0", b"1"))
    findings = differential.compare(differential.replay(address(server), [(request, answer), (request, wrong)]))
    assert differing(findings) == [(request.kind, "value", [request.number])]


# two addresses


@pytest.mark.system
def test_a_server_answers_every_request_twice_in_the_same_way(server):
    requests = [draw(3, number) for number in range(900)]
    findings = differential.compare(ask_all([address(server)] * 2, requests, 2))
    assert findings.count == 900
    assert (differing(findings), findings.on_purpose, findings.faults) == ([], {}, [])
    shares = {over: sum(request.over == over for request in requests) for over in ("rest", "raw", "grpc")}
    assert min(shares.values()) > 150
    good = sum(answers for status, answers in findings.answers.items() if "200" in status or "OK" in status)
    assert 300 < good < 600


@contextmanager
def stand_in(answer_of, models=200):
    """A server that answers a GET with the status `models`, a POST with (status, content type, body) of its body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.reply(models, JSON, b"{}")

        def do_POST(self):
            self.reply(*answer_of(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, status, content_type, body):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        try:
            yield [f"http://127.0.0.1:{server.server_port}", "127.0.0.1:1"]
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("altered", "what"),
    [
        ((200, JSON, b'{"predictions": [2.0000000000000004, NaN]}'), "value"),
        ((200, JSON, b'{"predictions": [2.0, NaN], "predictions": 1}'), "value"),
        ((503, JSON, GOOD[2]), "status 200 / 503"),
        ((200, "text/plain", GOOD[2]), "content type application/json / text/plain"),
        ((200, JSON, b'{\n "predictions": [2, NaN]}'), ""),
    ],
)
def test_one_altered_answer_is_found(altered, what):
    requests = [draw(0, number, ("rest",)) for number in range(40)]
    chosen = next(request for request in requests if [r.body for r in requests].count(request.body) == 1)
    with stand_in(lambda body: GOOD) as a, stand_in(lambda body: altered if body == chosen.body else GOOD) as b:
        findings = differential.compare(ask_all([Address(*a), Address(*b)], requests, 3))
    assert findings.count == 40
    assert differing(findings) == ([(chosen.kind, what, [chosen.number])] if what else [])
    assert len(findings.faults) == (altered[0] == 503)


def test_texts_of_errors_count_only_if_asked_for(capsys):
    with (
        stand_in(lambda body: (400, JSON, b'{"error": "a"}')) as a,
        stand_in(lambda body: (400, JSON, b'{"error": "b"}')) as b,
    ):
        options = ["--a", *a, "--b", *b, "--over", "rest", "--requests", "5"]
        assert differential.main(options) == 0
        assert differential.main([*options, "--texts"]) == 1
    assert "5 requests: 5 answered differently" in capsys.readouterr().out


def test_one_request_of_a_run_can_be_sent_alone(capsys):
    request = draw(7, 123, ("rest",))
    with stand_in(lambda body: GOOD) as a, stand_in(lambda body: (400, *GOOD[1:])) as b:
        options = ["--seed", "7", "--only", "123", "--over", "rest"]
        assert differential.main(["--a", *a, "--b", *b, *options]) == 1
        assert differential.main(["--a", *a, "--b", *a, *options]) == 0
    printed = capsys.readouterr().out
    assert printed.count(f"123: {request.kind}\n{request.path}\n{request.body!r}\n") == 2
    assert "status 200 / 400" in printed


def test_a_call_that_finds_all_threads_taken_is_sent_again():
    refusals = ["Server Threadpool Exhausted"] * 3

    class Busy(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(self.answer)

        def answer(self, message, context):
            if refusals:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, refusals.pop())
            return message

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Busy()])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    assert Address("http://127.0.0.1:1", target).ask(Request(0, "grpc/p", "/a/B", b"x")) == Answer("OK", "", b"x")
    refusals.append("too large")
    assert Address("http://127.0.0.1:1", target).ask(Request(0, "grpc/p", "/a/B", b"x")).status == "RESOURCE_EXHAUSTED"
    server.stop(0)


# seeds


def digest(seed):
    requests = [draw(seed, number) for number in range(300)]
    return hashlib.sha256(repr(requests).encode()).hexdigest()


def test_a_seed_makes_the_same_requests_in_every_process():
    program = (
        "from tests.serving.savedmodel_server.test_differential import digest\n"
        "print(digest(5))"
    )  # fmt: skip
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == digest(5) == digest(5)
    assert digest(5) != digest(6)


# recordings


def test_a_recording_is_read_as_it_was_written(tmp_path):
    answered = [
        (Request(0, "rest/odd body", "/v1/models/zoo:predict", b"\xff\x00\xc3\xa9"), Answer("400", JSON, b"\xfe")),
        (Request(1, "raw/GET", "", b"GET / HTTP/1.0\r\n\r\n"), Answer("HTTP/1.0 200 closed", "", b"")),
        (Request(2, "grpc/Predict", "/a/B", b"\x08\x80"), Answer("OK", "", b"\x80\x81")),
    ]
    path = tmp_path / "answers.jsonl.gz"
    assert recording.write(path, {"server": "s"}, answered) == 3
    header, lines = recording.read(path)
    assert (header["server"], list(lines)) == ("s", answered)


def test_a_recording_holds_another_server_against_the_first(tmp_path, capsys):
    path = str(tmp_path / "answers.jsonl.gz")
    with stand_in(lambda body: GOOD) as a, stand_in(lambda body: (404, JSON, b"")) as b:
        options = [*NO_GRPC, "--seed", "2", "--requests", "30", "--server", "stand-in", "--version", "1"]
        assert differential.main(["--a", *a, "--record", path, *options]) == 0
        assert differential.main(["--a", *a, "--replay", path, *NO_GRPC]) == 0
        assert differential.main(["--a", *b, "--replay", path, *NO_GRPC]) == 1
    assert "recorded from stand-in" in capsys.readouterr().out


def test_the_committed_recording_says_what_it_is():
    header, lines = recording.read(RECORDED)
    assert (header["server"], header["version"]) == ("TensorFlow Serving", "2.20.0")
    assert [request.kind for request, _ in islice(lines, 1)] == ["rest/predict echo_float32"]


# values


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"), ("[NaN]", "[ NaN ]"), ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'), ("1e400", "Infinity"),
        ("100", "1e2"), ('{"b64": "AAAA"}', '{ "b64" : "AAAA" }'), ('"\\u00e9"', '"é"'),
        ("0.1", "0.10000000000000000555"),
    ],
)  # fmt: skip
def test_two_spellings_of_a_value_are_equal(one, other):
    assert json_value(one) == json_value(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.0", "-0.0"), ("1", "true"), ("1", '"1"'), ("[]", "{}"), ("null", "0"), ("NaN", "Infinity"),
        ("[1, 2]", "[2, 1]"), ("9223372036854775807", "9223372036854775806"), ("1.0000001", "1.00000012"),
        ('{"a": 1}', '{"a": 1, "a": 1}'),
        ('{"a": 1, "a": 2}', '{"a": 2, "a": 1}'), ('{"b64": "AAAA"}', '{"b64": "AAAB"}'), ('"NaN"', "NaN"),
    ],
)  # fmt: skip
def test_two_values_that_a_client_can_tell_apart_are_not_equal(one, other):
    assert json_value(one) != json_value(other)


def predicted(**fields):
    """A PredictResponse with one float tensor of shape [2]."""
    from tensorflow_serving.apis import predict_pb2

    response = predict_pb2.PredictResponse()
    tensor = response.outputs["y"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=2)
    tensor.tensor_content = fields.pop("content", b"")
    tensor.float_val.extend(fields.pop("values", []))
    return Answer("OK", "", response.SerializeToString())


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ({"values": [1.0, 1.0]}, {"content": b"\x00\x00\x80\x3f" * 2}, ""),
        ({"values": [1.0, 1.0]}, {"values": [1.0]}, ""),
        ({"content": b"\x00\x00\xc0\x7f" * 2}, {"content": b"\x01\x00\xc0\xff" * 2}, ""),
        ({"values": [1.0, 1.0]}, {"values": [1.0, 1.0000001]}, "value"),
        ({"values": [0.0]}, {"values": [-0.0]}, "value"),
    ],
)
def test_tensors_are_compared_by_their_values(one, other, what):
    request = Request(0, "grpc/Predict", "/tensorflow.serving.PredictionService/Predict", b"")
    assert difference(request, predicted(**one), predicted(**other)) == what


# class S


DEEP = b'{"instances": [1.0], "k": ' + b"[" * 513 + b"]" * 513 + b"}"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"


@pytest.mark.parametrize(
    ("kind", "body", "name"),
    [
        ("rest/p", DEEP, "JSON nested over 512 deep"),
        ("rest/p", DEEP.replace(b"[" * 513, b"[" * 400), ""),
        ("rest/p", json.dumps({"instances": ["[" * 600]}).encode(), ""),
        ("raw/p", POST, ""),
        ("raw/p", POST + b"Content-Length: 2\r\n", ""),
        ("raw/p", POST.replace(b"Content", b"content-length: 1\r\nContent"), "two Content-Length headers"),
        ("raw/p", POST.replace(b"\r\n", b"\n"), "lines that end with LF alone"),
        ("raw/p", POST.replace(b"1.1", b"1.2"), "HTTP/1.2"),
    ],
)
def test_what_is_refused_on_purpose_is_told_apart(kind, body, name):
    request = Request(0, kind, "", body)
    answers = (Answer("HTTP/1.1 200 open"), Answer("HTTP/1.1 400 closed"))
    assert stricter(request, *answers) == name
    assert stricter(request, answers[0], Answer("HTTP/1.1 404 open")) == ""


def test_differences_on_purpose_do_not_fail_a_run(capsys):
    findings = differential.compare([(Request(0, "rest/p", "/", DEEP), Answer("200", JSON, b"1"), Answer("400", JSON))])
    differential.report(findings)
    assert findings.total() == 0
    assert "1 on purpose: JSON nested over 512 deep" in capsys.readouterr().out


# wrong usage


def test_an_address_that_does_not_answer_has_an_exit_code_of_its_own(capsys):
    (port,) = free_ports(1)
    nowhere = [f"http://127.0.0.1:{port}", f"127.0.0.1:{port}"]
    assert differential.main(["--a", *nowhere, "--b", *nowhere]) == 3
    assert "does not answer" in capsys.readouterr().err


def test_a_server_without_the_models_is_not_compared(capsys):
    with stand_in(lambda body: GOOD, models=404) as a:
        assert differential.main(["--a", *a, "--b", *a, *NO_GRPC]) == 3
    assert "does not serve half_plus_two: status 404" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["--a", "http://x:1"], ["--a", "http://x:1", "x:2"], ["--a", "http://x:1", "x:2", "--record", "f"]],
)
def test_a_wrong_command_line_has_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        differential.main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b\x08"])
def test_a_file_that_is_no_recording_is_told(content, tmp_path, capsys):
    path = tmp_path / "answers.jsonl.gz"
    path.write_bytes(content)
    with stand_in(lambda body: GOOD) as a:
        assert differential.main(["--a", *a, "--replay", str(path), *NO_GRPC]) == 2
    assert "is not a recording" in capsys.readouterr().err


def test_a_url_that_is_none_is_told(capsys):
    assert differential.main(["--a", "localhost:8501", "x:1", "--b", "localhost:8501", "x:1"]) == 2
    assert "is not a REST URL" in capsys.readouterr().err
