#!/bin/sh
# Installs the wheel without extras into a fresh environment and uses it there: with the Python that builds it, and with
# Python 3.13 where this machine has one.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3.11}
case $python in /*) ;; */*) python="$root/$python" ;; esac
most_bytes=650000000
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

bytes() { du -sb "$1" | cut -f1; }

check() { # interpreter; one line of what was seen, and the exit code
  version=$("$1" -c 'import platform; print(platform.python_version())')
  venv="$work/$version"
  "$1" -m venv "$venv"
  empty=$(bytes "$venv")
  # Only files with a hash are downloaded; the wheel then takes from them what its own metadata asks for.
  "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
    --dest "$work/core-$version" -r "$root/requirements/core.txt"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --find-links "$work/core-$version" \
    "$work"/dist/*.whl
  core=$(($(bytes "$venv") - empty))
  (cd "$work" && "$venv/bin/python" -m pytest -q --noconftest -c /dev/null --rootdir "$root/tests/core" -p no:cacheprovider \
    "$root/tests/core/core_alone.py")
  echo "core: Python $version, $((core / 1000000)) MB installed, used without extras"
  [ "$core" -lt $most_bytes ] || { echo "core: over $((most_bytes / 1000000)) MB"; exit 1; }
}

# A python3.13 on the PATH may be pyenv's, which runs only where a version is chosen.
python313() {
  for candidate in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13.*/bin/python3.13; do
    if "$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1; then echo "$candidate"; return; fi
  done
}

"$python" -m build --quiet --wheel --no-isolation --outdir "$work/dist" "$root"
newest=$(python313)
if [ -n "$newest" ]; then
  (check "$newest") >"$work/newest.log" 2>&1 &
  beside=$!
fi
check "$python"
if [ -z "$newest" ]; then
  echo "core: no Python 3.13 on this machine, so not tried with it"
elif wait $beside; then
  tail -n 1 "$work/newest.log"
else
  cat "$work/newest.log"
  exit 1
fi
