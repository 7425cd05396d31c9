#!/bin/sh
# install.sh WHAT...: a virtual environment in /opt/servestorm with each WHAT and nothing else: a list beside this file, which
# names every package with its hashes, or the folder of our own sources. Each package must have one of its hashes, and no
# build step fetches anything: build.txt, beside this file too, is all that may build. torch.txt is the exception, and says
# why. TORCH_INDEX may name the index of torch; nothing else is taken from there.
# What no running server needs is removed; what is left is compiled, because a read-only image cannot do that later.
# ENVIRONMENT may name another folder than /opt/servestorm.
set -eu
environment=${ENVIRONMENT:-/opt/servestorm}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
# Of the wheelhouse: hashes of what was built on its machine, from sources that had theirs.
built=${PIP_FIND_LINKS:-$work}/built.txt

pip_install() {
  PYTHONPATH=$work/tools pip --python "$environment/bin/python" install --quiet --disable-pip-version-check --no-cache-dir \
    --no-compile --no-build-isolation "$@"
}

verified() { # list: its packages, each from a file with one of its hashes
  awk -v built="$([ ! -f "$built" ] || echo "$built")" '
    BEGIN { while (built != "" && (getline line < built) > 0) { split(line, part, " "); ours[part[1]] = line } }
    /^#/ { next }
    { whole = whole $0 }
    /\\$/ { sub(/\\$/, "", whole); next }
    { split(whole, part, " "); print ((part[1] in ours) ? ours[part[1]] : whole); whole = "" }
  ' "$here/$1" >"$work/$1"
  pip_install --no-deps --require-hashes -r "$work/$1"
}

torch() { # From one index alone. The wheelhouse has its hash; a build for GPUs brings along what its metadata pins.
  if [ -f "$built" ]; then
    verified torch.txt
  elif [ -n "${TORCH_INDEX:-}" ]; then
    pip_install --no-deps --index-url "$TORCH_INDEX" -r "$here/torch.txt"
  else
    pip_install -r "$here/torch.txt"
  fi
}

python3.11 -m venv --without-pip "$environment"
pip --python "$environment/bin/python" install --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
  --target "$work/tools" -r "$here/build.txt"
for what in "$@"; do
  case $what in
    torch.txt) torch ;;
    *.txt) verified "$what" ;;
    *) pip_install --no-deps --no-index "$what" ;;
  esac
done
rm -rf "$work"
cd "$environment/lib/python3.11/site-packages"
# Only `tests`: TensorFlow has packages of its public API named `test`.
find . -type d -name tests -prune -exec rm -rf {} +
find . -type f \( -name '*.a' -o -name '*.pyi' -o -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.pyx' \) -delete
rm -rf tensorflow/include tensorflow/xla_aot_runtime_src torch/include torch/share torch/test pyarrow/include pyarrow/src
# torch_shm_manager is looked for at every import; the other programs are torch's own tests and protobuf's compiler.
if [ -d torch/bin ]; then find torch/bin -type f ! -name torch_shm_manager -delete; fi
# Names for a debugger only, 200 MB of them.
if [ -f tensorflow/libtensorflow_cc.so.2 ]; then strip --strip-unneeded tensorflow/libtensorflow_*.so.2; fi
find . -type d -empty -delete
python3.11 -m compileall -q -j 0 . || true # some packages carry files for other Pythons
