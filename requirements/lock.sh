#!/bin/sh
# lock.sh PYTHON, as `make lock` calls it: writes every list of packages with the SHA-256 of all files of each version that
# the index offers, so for every platform, by uv. constraints.txt takes its versions from PYTHON's environment: change them
# there with pip, then run `make lock`. Lists beside constraints.txt that resolve for themselves keep their versions.
#
#   UV_DEFAULT_INDEX   address of the package index (PyPI); never written into a list
set -eu
python=$1
tools=build/lock-tools
images=serving/images/requirements

locked() { # list, the file that it is made from, options of uv
  list=$1
  source=$2
  shift 2
  "$tools/bin/uv" pip compile --quiet --no-config --generate-hashes --no-header --no-annotate --no-emit-index-url \
    --python-version 3.11 "$@" "$source" --output-file "$list.new" >/dev/null
  { echo "# Made by \`make lock\` from ${source#build/}: do not edit."; cat "$list.new"; } >"$list"
  rm "$list.new"
}

pinned() { # list, the file that it is made from: its lines alone, at the versions of constraints.txt
  locked "$1" "$2" --no-deps --constraints constraints.txt
}

torch=$(grep '^torch==' $images/torch.txt)
{ sed -n 1p constraints.txt; "$python" -m pip freeze --all --exclude-editable | sed "s/^torch==.*/$torch/"; } >constraints.new
mv constraints.new constraints.txt

[ -x $tools/bin/python ] || "$python" -m venv $tools
$tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/lock.txt
grep -v -e '^#' -e '^torch==' -e '^pip==' -e '^setuptools==' -e '^wheel==' constraints.txt >build/constraints.txt
pinned requirements/dev.txt build/constraints.txt
pinned requirements/tools.txt requirements/tools.in
locked requirements/core.txt pyproject.toml --constraints constraints.txt
locked requirements/lock.txt requirements/lock.in --no-deps
for name in savedmodel torchserve generator trainer build; do pinned $images/$name.txt $images/$name.in; done
locked tests/deploy/chart/requirements.txt tests/deploy/chart/requirements.in --no-deps
locked benchmarks/fuzz/requirements.txt benchmarks/fuzz/requirements.in
locked benchmarks/savedmodel_server/peers.txt benchmarks/savedmodel_server/peers.in
