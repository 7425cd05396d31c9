#!/bin/sh
# tensorflow 2.21.0 with keras 3.15.1: `import tensorflow` alone also imports scikit-learn, scipy.stats and
# matplotlib.pyplot wherever they are installed, because it imports Keras's optimizers "if possible", and Keras imports its
# scikit-learn wrappers and its plotting code with itself. In a training image this is nearly half of the import.
# TF_USE_LEGACY_KERAS=1 without tf_keras installed makes the attempt fail quietly: TensorFlow imports without Keras, and graphs,
# sessions and SavedModels work. (Keras itself can then not be reached as tf.keras.)
# Seen with Python 3.11: 1.6 to 1.9 times the CPU time of the import without it.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
  tensorflow==2.21.0 keras==3.15.1 scikit-learn==1.9.1 matplotlib==3.11.2
cat >"$dir/look.py" <<'PY'
import resource, sys
import tensorflow as tf
assert float(tf.reduce_sum(tf.constant([1.0, 2.0]))) == 3.0
loaded = [name for name in ("keras", "sklearn", "scipy.stats", "matplotlib.pyplot") if name in sys.modules]
use = resource.getrusage(resource.RUSAGE_SELF)
print(" ".join(loaded) or "none", round(use.ru_utime + use.ru_stime, 2))
PY
export TF_CPP_MIN_LOG_LEVEL=3
"$dir/venv/bin/python" "$dir/look.py" >/dev/null 2>&1 # writes the bytecode
usual=$("$dir/venv/bin/python" "$dir/look.py" 2>/dev/null)
without=$(TF_USE_LEGACY_KERAS=1 "$dir/venv/bin/python" "$dir/look.py" 2>/dev/null)
echo "import tensorflow:                        $usual CPU s"
echo "import tensorflow, TF_USE_LEGACY_KERAS=1: $without CPU s"
case $usual in "keras sklearn scipy.stats matplotlib.pyplot "*) ;; *) echo "changed: the usual import"; exit 1 ;; esac
case $without in "none "*) ;; *) echo "changed: the import without Keras"; exit 1 ;; esac
echo "as described"
