#!/bin/sh
# tensorflow 2.21.0: tf.saved_model.save of a function whose weights are tf.constant tensors grows the process by several
# times the weights at its peak (they become Const nodes of one message: in the traced graph, in copies of it and as text of
# the message), and much more if the model has a second signature over the same constants. With tf.Variable, which go to a
# checkpoint tensor by tensor, it grows by less than the weights. Both SavedModels hold the weights once, and give the same answers.
# So freezing a large network "because inference is simpler" can fail on the machine that trained it.
# Seen with Python 3.11, weights of 128 MiB: growth of 4.16 times the weights with constants, of 0.01 with variables; both sets of files
# are 1.00 times the weights.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0
cat >"$dir/save.py" <<'PY'
import pathlib, resource, sys
import numpy as np
import tensorflow as tf

kind, place = sys.argv[1:]
side, layers = 2048, 8
weights = [np.random.default_rng(n).normal(0, 0.02, (side, side)).astype(np.float32) for n in range(layers)]
size = sum(w.nbytes for w in weights)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = [(tf.constant if kind == "constants" else tf.Variable)(w) for w in weights]

    @tf.function(input_signature=[tf.TensorSpec([None, side])])
    def plain(self, x):
        for w in self.w:
            x = tf.nn.relu(x @ w)
        return {"y": x}

    @tf.function(input_signature=[tf.TensorSpec([None, side])])
    def scaled(self, x):
        return self.plain(x / 255.0)

net = Net()
net.plain(tf.ones([1, side]))
before = peak()
tf.saved_model.save(net, place, signatures={"serving_default": net.plain, "scaled": net.scaled})
grown = (peak() - before) / size
files = sum(p.stat().st_size for p in pathlib.Path(place).rglob("*") if p.is_file()) / size
print(f"{grown:.2f} {files:.2f}")
PY
export TF_CPP_MIN_LOG_LEVEL=3
constants=$("$dir/venv/bin/python" "$dir/save.py" constants "$dir/c" 2>/dev/null)
variables=$("$dir/venv/bin/python" "$dir/save.py" variables "$dir/v" 2>/dev/null)
echo "times the weights: growth while saving, size of the files"
echo "constants: $constants"
echo "variables: $variables"
python3 - $constants $variables <<'PY'
import sys
constants, files_c, variables, files_v = map(float, sys.argv[1:])
if not (constants > 3 and variables < 1.5 and abs(files_c - 1) < 0.1 and abs(files_v - 1) < 0.1):
    sys.exit("changed: the growth, or the files")
PY
echo "as described"
