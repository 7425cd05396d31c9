#!/bin/sh
# install.sh LIST: a virtual environment in /opt/servestorm with the packages of LIST at the versions of constraints.txt,
# and nothing else: LIST names every dependency. Both files lie beside this one. TORCH_INDEX may name one more index.
# What no running server needs is removed; what is left is compiled, because a read-only image cannot do that later.
set -eu
here=$(dirname "$0")
python3.11 -m venv --without-pip /opt/servestorm
pip --python /opt/servestorm/bin/python install --quiet --disable-pip-version-check --no-cache-dir --no-compile --no-deps \
  ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c "$here/constraints.txt" -r "$here/$1"
cd /opt/servestorm/lib/python3.11/site-packages
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
