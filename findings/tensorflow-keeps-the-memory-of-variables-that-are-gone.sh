#!/bin/sh
# tensorflow 2.21.0, CPU: the memory of a tf.Variable of 384 MiB that was deleted stays with the process, to the last MiB; a
# second variable of that size takes none more. numpy's goes back at once, as a block of that size does with glibc. It is the
# allocator of TensorFlow's oneDNN part, which is on by default on x86 processors with VNNI: with TF_ENABLE_ONEDNN_OPTS=0 the
# memory goes back (and results may differ in the last bits). So a server that drops a model, or a step of an export that is
# done with its weights, never looks smaller, and resident memory after an unload says nothing of a leak.
# Seen with Python 3.11: oneDNN +400 MiB held, +400 after del, +0 for a second one; without it +384, +0, +384.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 psutil==7.0.0 2>/dev/null
cat >"$dir/look.py" <<'PY'
import gc, os, sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, psutil, tensorflow as tf

MIB = 1 << 20
size_mib = 384
rows = size_mib * MIB // 4 // 4096

def resident():
    gc.collect()
    return psutil.Process().memory_info().rss / MIB

tf.Variable(tf.zeros([8, 8]))
start = resident()
array = np.ones((rows, 4096), np.float32)
held = resident()
del array
print(f"numpy: +{held - start:.0f} MiB held, +{resident() - start:.0f} MiB after del")
numpy_left = resident() - start
start = resident()
variable = tf.Variable(tf.ones([rows, 4096]))
held = resident()
del variable
left = resident() - start
print(f"tf.Variable: +{held - start:.0f} MiB held, +{left:.0f} MiB after del")
again = tf.Variable(tf.ones([rows, 4096]))
more = resident() - start - left
print(f"a second one: +{more:.0f} MiB more")
kept = left > 0.9 * size_mib
assert numpy_left < 20, numpy_left
assert kept == (sys.argv[1] == "kept"), left
PY
"$dir/venv/bin/python" -c 'import importlib.metadata as m; print("tensorflow", m.version("tensorflow"))'
echo "TF_ENABLE_ONEDNN_OPTS=1:"
TF_ENABLE_ONEDNN_OPTS=1 "$dir/venv/bin/python" "$dir/look.py" kept 2>/dev/null
echo "TF_ENABLE_ONEDNN_OPTS=0:"
TF_ENABLE_ONEDNN_OPTS=0 "$dir/venv/bin/python" "$dir/look.py" returned 2>/dev/null
