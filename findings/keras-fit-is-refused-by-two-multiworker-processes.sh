#!/bin/sh
# Keras 3.15.1 on tensorflow 2.21.0: `fit` of a compiled model under tf.distribute.MultiWorkerMirroredStrategy, as
# TensorFlow's own guide shows it, trains with one worker in TF_CONFIG and raises in its first step on every worker of two: a
# PerReplica is "of unsupported type" for a tensor. Nothing of it is told before: the workers connect, and building and
# compiling under the strategy's scope succeed, so that a trial on one machine says nothing. Linux, Python 3.11, CPU.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 keras==3.15.1 2>/dev/null
cat >"$dir/worker.py" <<'PY'
import json, os, sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
place, addresses = int(sys.argv[1]), sys.argv[2:]
os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": place}})
import keras, numpy as np, tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
print("compiled for", strategy.num_replicas_in_sync, flush=True)
try:
    model.fit(np.ones((64, 4), "float32"), np.zeros(64, "int64"), batch_size=16, verbose=0)
except ValueError as error:
    print("ValueError", str(error)[:40], "..." if "unsupported type" in str(error) else str(error)[-80:])
else:
    print("trained")
PY
cat >"$dir/check.py" <<'PY'
import socket, subprocess, sys

def addresses(count):
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    names = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return names

for count in (1, 2):
    named = addresses(count)
    workers = [
        subprocess.Popen(
            [sys.executable, sys.argv[1] + "/worker.py", str(place), *named],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for place in range(count)
    ]
    said = [worker.communicate(timeout=180)[0] for worker in workers]
    print(f"{count} worker{'s' * (count > 1)}:", said)
    for one in said:
        assert f"compiled for {count}" in one, one
        if count == 1:
            assert one.endswith("trained\n"), one
        else:
            assert "ValueError Attempt to convert a value (PerReplica" in one and "..." in one, one
PY
"$dir/venv/bin/python" -c 'import importlib.metadata as m; print("keras", m.version("keras"), "tensorflow", m.version("tensorflow"))'
"$dir/venv/bin/python" "$dir/check.py" "$dir"
