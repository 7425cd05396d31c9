#!/bin/sh
# Makes every image from Debian and PyPI packages, for machines that cannot pull from a registry: a base with
# debootstrap, a wheelhouse with pip, then the images. Run by `make airgap-images`, from the root of the repository.
#
#   PYTHON          Python 3.11 with venv (python3.11)
#   DEBIAN_MIRROR   address of a Debian mirror (http://deb.debian.org/debian)
#   TORCH_INDEX     address of PyTorch's CPU wheel index; empty: whatever pip is configured for
set -eu
PYTHON=${PYTHON:-python3.11}
DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
TORCH_INDEX=${TORCH_INDEX:-}
HERE=serving/images
LOGS=build/airgap
BASE=servestorm/base:bookworm
VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' servestorm/__init__.py)
REVISION=$(git describe --always --dirty 2>/dev/null || echo unknown)
WHEELHOUSE=servestorm/wheelhouse:$VERSION
ENGINE_NEEDS_MB=10000
FOLDER_NEEDS_MB=2000

say() { echo "airgap-images: $1" >&2; }

fail() { # sentence; exit code 3: this machine lacks something
  say "$1"
  exit 3
}

logged() { # name, sentence for the case that it fails, command: its words go to a file, the last ones are shown
  name=$1
  sentence=$2
  shift 2
  "$@" >"$LOGS/$name.log" 2>&1 || {
    tail -n 8 "$LOGS/$name.log" >&2
    fail "$sentence (all it said: $LOGS/$name.log)"
  }
}

check_machine() {
  command -v docker >/dev/null || fail "docker is missing; on Debian: apt-get install docker.io"
  docker info >/dev/null 2>&1 || fail "no Docker Engine answers: start one (service docker start), or become a member of the group docker."
  command -v "$PYTHON" >/dev/null || fail "$PYTHON is missing; on Debian: apt-get install python3.11 python3.11-venv"
  if ! has_base; then
    [ "$(id -u)" = 0 ] || fail "debootstrap makes $BASE and must be root: run sudo make airgap-images."
    command -v debootstrap >/dev/null || fail "debootstrap is missing; on Debian: apt-get install debootstrap"
  fi
  mkdir -p $LOGS build/wheelhouse
  free_disk "$(docker info --format '{{.DockerRootDir}}')" $ENGINE_NEEDS_MB "docker system prune"
  free_disk build $FOLDER_NEEDS_MB "make clean"
}

free_disk() { # folder, MB, remedy. A folder that is not here belongs to an engine elsewhere.
  [ -d "$1" ] || return 0
  free_mb=$(df -Pm "$1" | awk 'NR == 2 {print $4}')
  [ "$free_mb" -ge "$2" ] || fail "$1 has $free_mb MB free and $2 MB are needed: free some space ($3)."
}

has_base() { docker image inspect $BASE >/dev/null 2>&1; }

make_base() {
  if has_base; then return; fi
  say "$BASE with debootstrap"
  root=$(mktemp -d "$PWD/$LOGS/base.XXXXXX")
  trap 'rm -rf --one-file-system "$root"' EXIT
  trap 'exit 130' INT TERM HUP
  logged base "debootstrap failed: is $DEBIAN_MIRROR reachable, or does DEBIAN_MIRROR name a nearer one?" \
    sh $HERE/base.sh "$root" "$DEBIAN_MIRROR"
  tar -C "$root" --numeric-owner -c . | docker import \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' --change 'CMD ["bash"]' \
    --change 'LABEL org.opencontainers.image.title=servestorm/base' - $BASE >/dev/null || fail "docker import of $BASE failed."
}

fill_wheelhouse() { # again only when a list has changed
  lock=$(cat requirements/tools.txt $HERE/requirements/*.txt | sha256sum | cut -d' ' -f1)
  if [ "$(cat build/wheelhouse/lock.sha256 2>/dev/null)" = "$lock" ]; then return; fi
  say "wheels into build/wheelhouse (about 700 MB the first time)"
  rm -rf build/wheelhouse.new
  mkdir build/wheelhouse.new
  [ -x $LOGS/pip/bin/pip ] || logged venv "venv failed; on Debian: apt-get install python3.11-venv" "$PYTHON" -m venv $LOGS/pip
  logged tools "pip could not get the tools that build" $LOGS/pip/bin/pip install --disable-pip-version-check \
    --no-deps --require-hashes -r requirements/tools.txt
  collect torch ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
  for list in savedmodel torchserve generator trainer build; do collect "$list" --require-hashes; done
  hash_built_wheels >build/wheelhouse.new/built.txt
  echo "$lock" >build/wheelhouse.new/lock.sha256
  rm -rf build/wheelhouse
  mv build/wheelhouse.new build/wheelhouse
}

collect() { # list, options of pip. A wheel comes as it is, anything else is built once, of a source that had its hash.
  list=$1
  shift
  logged "wheels-$list" "pip could not get all wheels of $list" $LOGS/pip/bin/pip wheel --disable-pip-version-check --no-deps \
    --no-build-isolation --wheel-dir build/wheelhouse.new --find-links build/wheelhouse "$@" -r "$HERE/requirements/$list.txt"
}

hash_built_wheels() { # Lines for install.sh: torch, and wheels that were built here, so that no list has their hash.
  for wheel in build/wheelhouse.new/*.whl; do
    sum=$(sha256sum "$wheel" | cut -d' ' -f1)
    if grep -qF "sha256:$sum" $HERE/requirements/*.txt; then continue; fi
    file=${wheel##*/}
    version=${file#*-}
    version=${version%%-*}
    echo "$(echo "${file%%-*}" | tr 'A-Z_.' 'a-z--')==${version%%+*} --hash=sha256:$sum"
  done
}

image() { # name, context
  say "servestorm/$1:$VERSION"
  logged "$1" "servestorm/$1 could not be built" docker build -f "$HERE/$1/Dockerfile" -t "servestorm/$1:$VERSION" \
    --build-arg "BASE=$BASE" --build-arg "BUILDER=$WHEELHOUSE" --build-arg "VERSION=$VERSION" \
    --build-arg "REVISION=$REVISION" "$2"
}

both() { # two commands side by side, since few of them use more than one core; fails if either does
  $1 &
  first=$!
  $2 &
  second=$!
  wait $first || { wait $second || true; exit 3; }
  wait $second || exit 3
}

from_tensorflow() { image savedmodel . && image busybox . && image prometheus .; }
from_torch() { image torchserve . && image generator . && image haproxy .; }

check_machine
both make_base fill_wheelhouse
image wheelhouse build/wheelhouse
both from_tensorflow from_torch
image trainer . # made of what the builds before it left in the engine's cache
docker images --filter 'reference=servestorm/*' --format 'table {{.Repository}}:{{.Tag}}\t{{.Size}}'
