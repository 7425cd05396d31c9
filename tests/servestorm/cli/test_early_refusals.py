"""What cannot work is refused in one sentence before anything is loaded, asked or started."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.errors import LoadTestError
from loadtests.options import add_options, read_options
from models.atomic import require_writable
from models.errors import ModelError
from servestorm.cli.main import main
from servestorm.errors import StudyError
from servestorm.rundir.files import require_place
from tests.source_tree import ROOT
from tests.stand_ins.toy_engine import toy_plan, write_toy_model


def refusal(capsys, *arguments):
    """(exit code, what it wrote to stderr) of a command that is refused."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return code, err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["import", "--name", "a/b", "--savedmodel", "."], "'a/b' is no model name"),
        (["import", "--name", "", "--savedmodel", "."], "'' is no model name"),
        (["import", "--name", "é", "--savedmodel", "."], "'é' is no model name"),
        (["import", "--name", "a", "--savedmodel", "nowhere"], "nowhere is not a directory"),
        (["import", "--name", "a", "--mar", "nowhere.mar"], "nowhere.mar does not exist"),
        (["import", "--name", "a", "--mar", "text"], "not a .mar in zip format"),
        (["import", "--name", "a", "--savedmodel", "sm", "--mean", "0.5,0.5,0.5"], "give --mean and --std"),
        (["import", "--name", "a", "--savedmodel", "sm", "--mean", "1,2", "--std", "1,2"], "needs three means"),
        (["import", "--name", "a", "--savedmodel", "sm", "--images", "nowhere"], "nowhere is not a directory"),
        (["import", "--name", "a", "--savedmodel", "sm", "--out", "text"], "text"),
        (["export", "--name", "a/b"], "'a/b' is no model name"),
        (["export", "--weights", "nowhere"], "nowhere"),
        (["train", "--out", "text"], "text cannot be made, a file is in the way"),
        (["train", "--out", "text/weights"], "text/weights cannot be made, a file is in the way"),
        (["export", "--pretrained", "w.pth"], "--pretrained needs --network"),
        (["export", "--network", "vgg16"], "--network belongs to --pretrained"),
        (["export", "--labels", "text"], "--labels belongs to --pretrained"),
        (["export", "--pretrained", "w.pth", "--network", "vgg16"], "w.pth does not exist"),
        (["export", "--pretrained", "text", "--network", "vgg16"], "weights of vgg16 are read in Keras's form"),
        (["train", "--pretrained", "text"], "There are no published weights of cnn"),
        (["train", "--classes", "3"], "Only data set synthetic takes a number of classes"),
        (["train", "--dataset", "medmnist"], "medmnist needs --data-dir: an .npz file"),
        (["train", "--dataset", "xray", "--data-dir", "nowhere"], "nowhere is not a directory"),
        (["train", "--dataset", "synthetic", "--images", "5"], "5 images are too few for 10 classes"),
        (["train", "--dataset", "folder"], "needs --data-dir"),
        (["train", "--dataset", "folder", "--data-dir", "nowhere"], "nowhere is not a directory"),
    ],
)
def test_arguments_are_checked_before_a_framework_is_loaded(tmp_path, arguments, sentence):
    (tmp_path / "text").write_text("text")
    (tmp_path / "sm").mkdir()
    (tmp_path / "sm" / "saved_model.pb").write_bytes(b"")
    script = (
        "import sys\nfrom servestorm.cli.main import main\ncode = main(sys.argv[1:])\n"
        "assert not {'tensorflow', 'torch', 'keras'} & set(sys.modules), 'a framework was loaded'\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert sentence in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--resume", ""],
        ["run", ""],
        ["run", "--out", ""],
        ["report", ""],
        ["compare", "", "latest"],
        ["compare", "a", "b", "--junit", ""],
        ["compare", "a", "b", "--margin", "nan"],
        ["compare", "a", "b", "--margin", "inf"],
        ["train", "--out", ""],
        ["train", "--epochs", "１２"],
        ["train", "--epochs", "1_0"],
        ["train", "--seed", "-1"],
        ["train", "--seed", "٣"],
        ["export", "--weights", " "],
        ["export", "--version", "0"],
        ["export", "--version", "9223372036854775808"],
        ["serve", "--engine", "savedmodel", "--model", ""],
        ["serve", "--engine", "savedmodel", "--ready-timeout", "nan"],
        ["serve", "--engine", "savedmodel", "--ready-timeout", "inf"],
        ["serve", "--engine", "savedmodel", "--port", "８０８０"],
        ["serve", "--engine", "savedmodel", "--cpus", "0-99999999999"],
        ["serve", "--engine", "savedmodel", "--cpus", "1-0"],
        ["serve", "--engine", "savedmodel", "--threads", "99999999"],
        ["import", "--name", "a", "--mean", "nan,0,0"],
        ["import", "--name", "a", "--std", "1,inf,1"],
        ["import", "--name", "a", "--size", "99999x99999"],
        ["import", "--name", "a", "--size", "２x２"],
        ["import", "--name", "a", "--tolerance", "nan"],
        ["import", "--name", "a", "--tolerance", "0"],
        ["import", "--name", "a", "--tolerance", "1"],
        ["import", "--name", "a", "--savedmodel", ""],
        ["import", "--name", "a", "--mar", "a\0b"],
        ["import", "--name", "a", "--mar", "a\udcff"],
        ["run", "--out", "\udcff"],
        ["clean", "--namespace", ""],
        ["clean", "--context", ""],
        ["image", "cnn", "--tag", ""],
        ["image", "cnn", "--base", " "],
        ["import", "--name", "a", "--savedmodel", "sm", "--output", ""],
        ["wait", "http://127.0.0.1:1", "--model", ""],
        ["report", "\udcff"],
    ],
)
def test_an_option_that_is_empty_or_no_plain_number_is_refused(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, err = refusal(capsys, *arguments)
    assert code == 2
    assert " is no" in err and len(err.splitlines()) == 2  # argparse's line, and where to read on
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--rate", "--duration", "--cv", "--mmpp-rates"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_schedule_of_no_number_is_refused(option, value, capsys):
    more = ("--arrivals", "mmpp", "--mmpp-dwells", "1") if option == "--mmpp-rates" else ()
    code, err = refusal(capsys, "schedule", option, value, *more)
    assert code == 2
    assert f"{option} must be" in err and "finite" in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--rate", "nan"], "--rate must be a finite number"),
        (["--timeout", "inf"], "--timeout must be a finite number"),
        (["--out", ""], "--out is empty: give a value, or leave it out."),
        (["--manifest", " "], "--manifest is empty"),
        (["--grpc-target", ""], "--grpc-target is empty"),
        (["--metrics-port", "99999"], "--metrics-port must be a port (1 to 65535) or 0, not 99999."),
        (["--metrics-port", "-1"], "--metrics-port must be a port"),
        (["--timeout", "1e300"], "--timeout must be 31,622,400 seconds or less, not 1e+300."),
        (["--warmup", "1e300"], "--warmup must be 31,622,400 seconds or less, not 1e+300."),
        (["--images-per-request", "99999999999"], "--images-per-request must be 10,000 or less, not 99999999999."),
        (["--engine", "http", "--http-path", "/é"], "--http-path '/é' cannot be sent: percent-encode it"),
        (["--engine", "http", "--http-method", "GET /\r\nX:"], "--http-method"),
        (["--grpc-target", "hôte:1"], "--grpc-target"),
        (["--grpc-target", "a b:1"], "--grpc-target"),
        (["--engine", "http", "--http-path", "/a b"], "--http-path"),
    ],
)
def test_a_load_refuses_what_it_cannot_send(options, sentence):
    assert load_options("http://a:1, b:2", "--grpc-target", "a:1, b:1")
    with pytest.raises(LoadTestError, match="^" + re.escape(sentence)):
        load_options("http://127.0.0.1:1", *options)


def load_options(host, *options):
    """What the options of a load are read as."""

    class Group:
        def __init__(self, parser):
            self.parser = parser

        def add_argument_group(self, *_):
            return self.parser

    parser = argparse.ArgumentParser()
    add_options(Group(parser), "constant")
    return read_options(parser.parse_args(options, argparse.Namespace(host=host)))


@pytest.mark.parametrize("password", ["s3cr3t", "s3cr3té", "s3cr3t word", "s3cr3t,word", "s3cr3t/word"])
@pytest.mark.parametrize("option", ["--host", "--grpc-target"])
def test_a_password_in_an_address_is_refused_and_not_repeated(password, option):
    address = f"http://user:{password}@127.0.0.1:1"
    with pytest.raises(LoadTestError, match="holds a user name or password, which is never sent") as caught:
        load_options(*((address,) if option == "--host" else ("http://a:1", option, address)))
    assert "s3cr3t" not in str(caught.value)


def plan(tmp_path, **changes):
    model = tmp_path / "toy"
    if not model.exists():
        write_toy_model(model)
    (tmp_path / "plan.yaml").write_text(json.dumps({**json.loads(toy_plan(model)), **changes}))
    return tmp_path / "plan.yaml"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": {"name": "toy", "path": "nowhere"}}, "nowhere/manifest.json does not exist"),
        ({"model": {"name": "other", "path": "toy"}}, "holds the model 'toy', the plan says 'other'"),
        ({"model": {"name": "resnet"}}, "there is no model resnet in build/models, did you mean resnet50?"),
        ({"model": {"name": "cnn", "dataset": "folder", "data_dir": "nowhere"}}, "model.data_dir"),
        (
            {"backend": "docker", "limits": {"memory_mib": 128}},
            "limits.memory_mib: a replica may use 128 MiB, and toy alone has",
        ),
        ({"prices": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ({"backend": "kubernetes", "kubernetes": {"values": ["nowhere.yaml"]}}, "nowhere.yaml is not a file"),
        ({"cpus": {"engine": [4000], "generator": [0]}}, "core 4000"),
        (
            {"steady": {"rate_per_s": 1e6, "duration_s": 86400}},
            "steady: 1e+06 requests/s for 86400 s are over 200,000,000 arrivals",
        ),
        (
            {"bursty": {"base_rate": 1, "peak_rate": 2, "on_s": 1e-9, "off_s": 1e-9, "duration_s": 5}},
            "bursty: the on and off times of 2e-09 s would come over",
        ),
        (
            {"capacity": {"p99_ms": 20, "start_rate_per_s": 1e6, "probe_s": 3600}},
            "capacity: 1e+06 requests/s for 3600 s are over 200,000,000 arrivals",
        ),
        ({"payload": "tensor", "model": {"name": "grey", "path": "grey"}}, "does not say how images become tensors"),
        (
            {"objectives": [{"metric": "steady.p98", "at_most": 1}]},
            "'steady.p98' is no figure of this plan, did you mean",
        ),
        ({"objectives": [{"metric": "bursty.p99", "at_most": 1}]}, "'bursty.p99' is no figure of this plan"),
        ({"objectives": [{"metric": "scaling.images_per_s_x8", "at_least": 1}]}, "images_per_s_x"),
        ({"objectives": [{"metric": "steady.p99", "at_most": 1, "engines": ["tfserving"]}]}, "tfserving is not among"),
        ({"objectives": [{"metric": "steady.p99", "atmost": 1}]}, "did you mean `at_most`?"),
        (
            {"protocol": ["rest", "grpc"], "objectives": [{"metric": "steady.p99", "at_most": 1}]},
            "did you mean steady[gRPC].p99",
        ),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_dry_run_refuses_what_the_run_refuses(tmp_path, monkeypatch, capsys, changes, sentence, dry):
    monkeypatch.chdir(tmp_path)
    for name in ("resnet50", "vgg"):
        (tmp_path / "build" / "models" / name).mkdir(parents=True)
        (tmp_path / "build" / "models" / name / "manifest.json").write_text("{}")
    grey = write_toy_model(tmp_path / "grey") / "manifest.json"
    grey.write_text(json.dumps({**json.loads(grey.read_text()), "name": "grey", "input": None}))
    code, err = refusal(capsys, "run", plan(tmp_path, **changes), *(["--dry-run"] if dry else []))
    assert (code, len(err.splitlines())) == (2, 1)
    assert sentence in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "metric", ["steady.p99", "coldstart.total_s", "scaling.images_per_s_x2", "scaling.factor_x1", "steady.mean_ms"]
)
def test_an_objective_on_any_figure_of_the_plan_is_taken(tmp_path, capsys, metric):
    assert main(["run", str(plan(tmp_path, objectives=[{"metric": metric, "at_most": 1}])), "--dry-run"]) == 0
    assert "nothing was started" in capsys.readouterr().out


@pytest.mark.parametrize("metric", ["steady.p98", "p99", "nothing", "scaling.images_per_s_x"])
def test_a_comparison_refuses_a_figure_of_no_study_before_it_reads_the_runs(capsys, metric):
    code, err = refusal(capsys, "compare", "no-run", "no-run-either", "--metric", metric)
    assert code == 2
    assert f"--metric {metric!r} is no figure of any study" in err


def test_a_comparison_takes_a_figure_with_its_variant(capsys):
    _, err = refusal(capsys, "compare", "no-run", "no-run-either", "--metric", "steady[gRPC, 8 images].p99")
    assert "there is no run no-run" in err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: a\nengines: [savedmodel]\nname: b\n", "plan.yaml:3: `name` is given twice, in line 1 too"),
        (
            "name: a\nsteady:\n  duration_s: 1\n  duration_s: 2\n",
            "plan.yaml:4: `duration_s` is given twice, in line 3 too",
        ),
        ("objectives:\n- metric: a\n  metric: b\n", "plan.yaml:3: `metric` is given twice"),
    ],
)
def test_a_key_that_is_given_twice_is_named_with_its_lines(tmp_path, capsys, text, sentence):
    (tmp_path / "plan.yaml").write_text(text)
    code, err = refusal(capsys, "run", tmp_path / "plan.yaml", "--dry-run")
    assert code == 2
    assert sentence in err


def test_a_manifest_by_another_name_is_refused_and_not_its_neighbour_read(tmp_path):
    from loadtests.errors import LoadTestError
    from loadtests.generator.targets import read_model

    model = write_toy_model(tmp_path / "toy")
    (model / "broken.json").write_text("{")
    with pytest.raises(LoadTestError, match=r"broken\.json is no manifest\.json"):
        read_model(model / "broken.json")
    (model / "manifest.json").write_text("{")
    with pytest.raises(LoadTestError, match=r"manifest\.json is not JSON"):
        read_model(model / "manifest.json")


def test_two_of_our_locustfiles_together_are_refused(tmp_path):
    files = ",".join(str(ROOT / "loadtests" / name) for name in ("steady.py", "bursty.py"))
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", files, "--headless", "--host", "http://127.0.0.1:1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "a second locustfile of ours" in done.stderr


@pytest.mark.parametrize("dry", [True, False])
def test_a_header_of_an_endpoint_that_cannot_be_read_is_told_by_a_dry_run_too(tmp_path, capsys, dry):
    headers = {"Authorization": "Bearer env:NO_SUCH_VARIABLE"}
    attached = {"backend": "attach", "attach": {"savedmodel": {"rest": "http://127.0.0.1:1", "headers": headers}}}
    unasked = {"engines": ["savedmodel"], "scaling": None, "cold_starts": 0}
    written = plan(tmp_path, **attached, **unasked)
    code, err = refusal(capsys, "run", written, "--out", tmp_path / "runs", *(["--dry-run"] if dry else []))
    assert (code, len(err.splitlines())) == (2, 1)
    assert "env:NO_SUCH_VARIABLE, which is not set here" in err


@pytest.mark.parametrize(
    ("place", "reason"),
    [("file", "file exists"), ("file/runs", "not a directory"), ("/proc/runs", "no such file or directory")],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_place_that_cannot_hold_a_run_is_told_before_anything_is_made(tmp_path, capsys, place, reason, dry):
    (tmp_path / "file").write_text("")
    code, err = refusal(capsys, "run", plan(tmp_path), "--out", tmp_path / place, *(["--dry-run"] if dry else []))
    assert (code, len(err.splitlines())) == (3, 1)
    assert f"{place} cannot hold a run ({reason}): choose another place with --out" in err


def test_a_plan_is_not_taken_beside_a_run_that_goes_on(tmp_path, capsys):
    code, err = refusal(capsys, "run", plan(tmp_path), "--resume", "latest")
    assert code == 2
    assert "--resume goes on with the plan of latest: leave" in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--port", "65535", "--replicas", "2"], "--port 65535 leaves no ports for 2 replicas"),
        (["--cpus", "4095"], "core 4095 is not usable here"),
        ([], "nowhere/manifest.json does not exist"),
    ],
)
def test_options_of_serve_are_judged_before_the_model_is_read(tmp_path, monkeypatch, capsys, options, sentence):
    monkeypatch.chdir(tmp_path)
    code, err = refusal(capsys, "serve", "--engine", "savedmodel", "--model", "nowhere", *options)
    assert (code, len(err.splitlines())) == (2, 1)
    assert sentence in err


def test_places_that_are_tried_are_left_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for tried in (require_place, require_writable):
        tried(Path("a/runs"))
        tried(Path("a/../../weights"))
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path.parent / "weights").exists()


@pytest.mark.parametrize("tried", [require_place, require_writable])
def test_a_place_that_is_tried_is_never_made_so_that_two_commands_do_not_disturb_each_other(
    tmp_path, monkeypatch, tried
):
    made, mkdir = [], os.mkdir
    monkeypatch.setattr(
        os, "mkdir", lambda path, *rest, **named: (made.append(Path(path)), mkdir(path, *rest, **named))
    )
    tried(tmp_path / "a" / "runs")
    assert made and not {tmp_path / "a", tmp_path / "a" / "runs"} & set(made)


@pytest.mark.parametrize("tried", [require_place, require_writable])
def test_a_file_or_a_dangling_link_in_the_way_of_a_place_is_told(tmp_path, tried):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for place in (tmp_path / "file", tmp_path / "file" / "runs", tmp_path / "link"):
        with pytest.raises((StudyError, ModelError)):
            tried(place)
