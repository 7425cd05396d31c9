"""The command line of savedmodel-server."""

import subprocess
import sys

import pytest

from serving.savedmodel_server.__main__ import main
from serving.savedmodel_server.errors import FlagError
from serving.savedmodel_server.flags import REFUSED, parse_flags


def test_flags_take_both_spellings_and_booleans_need_no_value(tmp_path):
    flags = parse_flags(["--model_name", "m", f"--model_base_path={tmp_path}", "--enable_batching", "--port=1"])
    assert (flags.model_name, flags.port, flags.enable_batching) == ("m", 1, True)
    assert parse_flags([f"--model_base_path={tmp_path}", "--enable_model_warmup=false"]).enable_model_warmup is False


def test_grpc_has_four_threads_a_core_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 5})
    assert parse_flags(["--model_base_path=.", "--enable_batching"]).grpc_threads == 12
    assert parse_flags(["--model_base_path=.", "--grpc_max_threads=7"]).grpc_threads == 7


@pytest.mark.parametrize("name", REFUSED)
def test_a_flag_of_tensorflow_serving_that_we_lack_is_refused_by_name(name, tmp_path):
    with pytest.raises(FlagError, match=f"--{name} is a flag of TensorFlow Serving"):
        parse_flags([f"--model_base_path={tmp_path}", f"--{name}=1"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--model_base_path"),
        (["--model_base_path=/does/not/exist"], "is not a folder"),
        (["--model_base_path=.", "--port=0", "--rest_api_port=0"], "both 0"),
        (["--model_base_path=.", "--port=70000"], "no TCP port"),
        (["--model_base_path=.", "--port=9", "--rest_api_port=9"], "different ports"),
        (["--model_base_path=.", "--no_such_flag=1"], "no_such_flag"),
        (["--model_base_path=.", "--max_unfinished_request_bytes=9"], "allow at least one request"),
        (["--model_base_path=.", "--port=x"], "invalid int value"),
        (["--model_base_path=.", "--grpc_max_threads=1"], "use at least 2"),
        (["--model_base_path=.", "--enable_batching=maybe"], "neither true nor false"),
        (["--model_base_path=.", "--batching_parameters_file=x"], "needs --enable_batching"),
        (["--model_base_path=.", "--enable_batching", "--batching_parameters_file=/nope"], "cannot be read"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_code_2(arguments, says, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_help_needs_neither_tensorflow_nor_fastapi():
    code = "import sys; from serving.savedmodel_server.flags import parser; parser().format_help(); " \
        "print([m for m in ('tensorflow', 'fastapi', 'grpc', 'numpy') if m in sys.modules])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
