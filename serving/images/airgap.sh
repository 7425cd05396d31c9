#!/bin/sh
# Makes every image from Debian and PyPI packages, for machines that cannot pull from a registry: a base with
# debootstrap, a wheelhouse with pip, then the images. Run by `make airgap-images`, from the root of the repository.
#
#   PYTHON          Python 3.11 with venv (python3.11)
#   DEBIAN_MIRROR   address of a Debian mirror (http://deb.debian.org/debian)
#   TORCH_INDEX     address of PyTorch's CPU wheel index; empty: whatever pip is configured for
#   IMAGES          what to build (all)
set -eu
PYTHON=${PYTHON:-python3.11}
DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
TORCH_INDEX=${TORCH_INDEX:-}
IMAGES=${IMAGES:-savedmodel torchserve trainer generator haproxy prometheus busybox}
HERE=serving/images
BASE=servestorm/base:bookworm
BASE_NEEDS_KB=1500000
ENGINE_NEEDS_KB=14000000
WHEELS_NEED_KB=2000000

fail() { # sentence; exit code 3: this machine lacks something
  echo "airgap-images: $1" >&2
  exit 3
}

check_machine() {
  command -v docker >/dev/null || fail "docker is missing; on Debian: apt-get install docker.io"
  docker info >/dev/null 2>&1 || fail "no Docker Engine answers; start one (service docker start), or join the group docker."
  command -v "$PYTHON" >/dev/null || fail "$PYTHON is missing; on Debian: apt-get install python3.11 python3.11-venv"
  free_disk "$(docker info --format '{{.DockerRootDir}}')" $ENGINE_NEEDS_KB "docker system prune"
}

free_disk() { # folder, KB, remedy. A folder that is not here belongs to an engine elsewhere.
  [ -d "$1" ] || return 0
  free_kb=$(df -Pk "$1" | awk 'NR == 2 {print $4}')
  [ "$free_kb" -ge "$2" ] || fail "$1 has $((free_kb / 1000000)) GB free and $(($2 / 1000000)) GB are needed: free some space ($3)."
}

make_base() {
  if docker image inspect $BASE >/dev/null 2>&1; then return; fi
  [ "$(id -u)" = 0 ] || fail "debootstrap makes the base image $BASE as root: run sudo make airgap-images."
  command -v debootstrap >/dev/null || fail "debootstrap is missing; on Debian: apt-get install debootstrap"
  echo "airgap-images: $BASE with debootstrap (about two minutes)"
  mkdir -p build/airgap
  free_disk build/airgap $BASE_NEEDS_KB "make clean"
  root=$(mktemp -d "$PWD/build/airgap/base.XXXXXX")
  trap 'rm -rf "$root"' EXIT
  sh $HERE/base.sh "$root" "$DEBIAN_MIRROR" >build/airgap/base.log 2>&1 || {
    tail -n 5 build/airgap/base.log >&2
    fail "debootstrap failed; all it said is in build/airgap/base.log. Is $DEBIAN_MIRROR reachable (DEBIAN_MIRROR)?"
  }
  tar -C "$root" --numeric-owner -c . | docker import \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' --change 'CMD ["bash"]' \
    --change 'LABEL org.opencontainers.image.title=servestorm/base' - $BASE >/dev/null
  rm -rf "$root"
  trap - EXIT
}

fill_wheelhouse() {
  wanted=$(cat constraints.txt $HERE/requirements/*.txt | sha256sum | cut -d' ' -f1)
  if [ "$(cat build/wheelhouse/lock.sha256 2>/dev/null)" = "$wanted" ]; then return; fi
  echo "airgap-images: wheels into build/wheelhouse (about 700 MB the first time)"
  mkdir -p build/wheelhouse
  free_disk build/wheelhouse $WHEELS_NEED_KB "make clean"
  [ -x build/airgap/pip/bin/pip ] || "$PYTHON" -m venv build/airgap/pip || fail "venv failed; on Debian: apt-get install python3.11-venv"
  collect ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
  for list in $HERE/requirements/*.txt; do collect -r "$list"; done
  echo "$wanted" >build/wheelhouse/lock.sha256
}

collect() { # what pip takes: wheels come as they are, anything else is built once
  build/airgap/pip/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheelhouse \
    --find-links build/wheelhouse -c constraints.txt "$@" || fail "pip could not fetch the packages named above."
}

build() { # image
  echo "airgap-images: servestorm/$1:$VERSION"
  docker build --quiet -f "$HERE/$1/Dockerfile" -t "servestorm/$1:$VERSION" --build-arg "BASE=$BASE" \
    --build-arg "BUILDER=servestorm/wheelhouse:$VERSION" --build-arg "VERSION=$VERSION" --build-arg "REVISION=$REVISION" \
    . >/dev/null || fail "servestorm/$1 could not be built; what failed stands above."
}

VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' servestorm/__init__.py)
REVISION=$(git describe --always --dirty 2>/dev/null || echo unknown)
check_machine
make_base
fill_wheelhouse
docker build --quiet -f $HERE/wheelhouse/Dockerfile -t "servestorm/wheelhouse:$VERSION" --build-arg BASE=$BASE \
  build/wheelhouse >/dev/null || fail "the wheelhouse image could not be built; what failed stands above."
for image in $IMAGES; do build "$image"; done
docker images --filter 'reference=servestorm/*' --format 'table {{.Repository}}:{{.Tag}}\t{{.Size}}'
