"""A model in the form of TensorFlow Serving's ResNet tutorial goes through import, load and study.

The tutorial's graph is of TensorFlow 1, with `image_bytes` to `classes` (int64) and `probabilities` (float32); this one
has the same signatures and three classes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.ports import free_ports
from tests.stand_ins.pictures import encode, picture

pytestmark = pytest.mark.system

PLAN = """\
name: tutorial
model: {name: resnet}
engines: [savedmodel]
protocol: [rest, grpc]
repetitions: 3
cold_starts: 1
steady: {rate_per_s: 20, duration_s: 2, warmup_s: 0.5}
objectives: [{metric: "steady[gRPC].p99", at_most: 10000}]
disturbance: ignored
"""
SAVE = """\
import sys
import numpy as np
import tensorflow as tf

saved = tf.compat.v1.saved_model
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    images = tf.compat.v1.placeholder(tf.string, [None], name="input_tensor")
    decode = lambda data: tf.image.resize(tf.cast(tf.image.decode_jpeg(data, channels=3), tf.float32), (8, 8))
    pixels = tf.map_fn(decode, images, fn_output_signature=tf.TensorSpec([8, 8, 3], tf.float32))
    kernel = tf.compat.v1.get_variable("kernel", initializer=np.eye(3, dtype=np.float32))
    logits = tf.matmul(tf.reduce_mean(pixels, (1, 2)) / 64, kernel)
    outputs = {"classes": tf.argmax(logits, 1), "probabilities": tf.nn.softmax(logits, name="softmax_tensor")}
    session.run(tf.compat.v1.global_variables_initializer())
    signature = saved.build_signature_def(
        inputs={"image_bytes": saved.build_tensor_info(images)},
        outputs={name: saved.build_tensor_info(tensor) for name, tensor in outputs.items()},
        method_name="tensorflow/serving/predict",
    )
    builder = saved.Builder(sys.argv[1])
    signatures = {"predict": signature, "serving_default": signature}
    builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures, strip_default_attrs=True)
    builder.save()
"""


def servestorm(*arguments: object, cwd: Path, codes: tuple[int, ...] = (0,)) -> str:
    """What the command wrote to stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "servestorm.cli.main", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode in codes, done.stderr
    return done.stdout


@pytest.mark.timeout(900)
def test_the_tutorial_s_model_goes_through_import_load_and_study(tmp_path):
    subprocess.run(
        [sys.executable, "-c", SAVE, str(tmp_path / "resnet" / "1538687457")], check=True, capture_output=True
    )
    (tmp_path / "images").mkdir()
    for index in range(8):
        tinted = (picture(20, 30, seed=index) * np.random.default_rng(index).uniform(0, 1, 3)).astype(np.uint8)
        (tmp_path / "images" / f"{index}.jpg").write_bytes(encode(tinted, "JPEG"))

    told = servestorm("import", "--name", "resnet", "--savedmodel", "resnet", "--images", "images", cwd=tmp_path)
    assert "SavedModel: 1, " in told
    manifest = json.loads((tmp_path / "build/models/resnet/manifest.json").read_text())
    assert (manifest["image_input"], manifest["output"], manifest["golden_from"]) == (
        "image_bytes",
        "probabilities",
        "savedmodel",
    )
    assert [len(golden["probabilities"]) for golden in manifest["golden"]] == [3] * 8

    _load(tmp_path)

    # 4 where a busy machine made every run INVALID: an honest end too, with everything written
    servestorm("run", "--dry-run", _plan(tmp_path), cwd=tmp_path)
    servestorm("run", _plan(tmp_path), cwd=tmp_path, codes=(0, 4))
    (run,) = (tmp_path / "runs").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert results["state"] == "complete"
    assert [r["state"] for r in results["runs"]] == ["complete"] * len(results["runs"])
    summaries = [json.loads(path.read_text()) for path in (run / "cells").glob("*-steady-*/summary.json")]
    assert len(summaries) == 6
    for summary in summaries:
        _assert_right(summary)


def _assert_right(summary: dict[str, Any]) -> None:
    """Whatever a busy machine did to times, what was answered was read and right."""
    assert (summary["answers"], summary["wrong_answers"]) == ("checked", 0)
    assert "bad_reply" not in summary["errors"]
    assert summary["requests_per_s"] > 0


def _plan(folder: Path) -> Path:
    (folder / "plan.yaml").write_text(PLAN)
    return folder / "plan.yaml"


def _load(folder: Path) -> None:
    """A load by hand, of a server by hand."""
    (port,) = free_ports(1)
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "servestorm.cli.main", "serve", "--engine", "savedmodel"),
            *("--model", "build/models/resnet", "--port", str(port)),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            servestorm("wait", url, "--model", "resnet", cwd=folder)
            asked = [
                "--headless",
                "--host",
                url,
                "--model",
                "resnet",
                "--manifest",
                "build/models/resnet/manifest.json",
            ]
            servestorm(
                *("load", "steady", *asked, "--rate", 20, "--duration", 2, "--warmup", 0, "--out", "load"),
                cwd=folder,
                codes=(0, 4),
            )
            summary = json.loads((folder / "load" / "summary.json").read_text())
            _assert_right(summary)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
    assert server.returncode == 130
