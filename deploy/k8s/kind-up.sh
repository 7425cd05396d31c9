#!/usr/bin/env bash
# make kind-up: a cluster in Docker with metrics-server, our images loaded into it, and the chart installed.
# MODEL is the export to serve (default build/models/cnn), ENGINE savedmodel (default) or torchserve.
#
# Not yet tried: where this was written no node image could be pulled. What it calls is tested in parts: the chart's
# rendering with values/kind.yaml, and the images.
set -euo pipefail
cd "$(dirname "$0")/../.."

engine=${ENGINE:-savedmodel}
model=${MODEL:-build/models/cnn}
name=$(basename "$model")
version=$(sed -n 's/^appVersion: *"\(.*\)"/\1/p' deploy/k8s/servestorm/Chart.yaml)
# metrics-server's manifest, and the SHA-256 that it must have. This one is of what `kubectl kustomize
# manifests/overlays/release` writes at commit d66279c6 (v0.8.0) of its repository, which is how a release makes the file.
metrics_server=${METRICS_SERVER:-https://github.com/kubernetes-sigs/metrics-server/releases/download/v0.8.0/components.yaml}
metrics_server_sha256=${METRICS_SERVER_SHA256:-ff64d1a13b9ac3b0635f0dd985815fb44c23eed4706c04e5db1daadf6bc0a83b}
# The manifest names its image by tag; an image with a digest (name@sha256:...) takes its place.
metrics_server_image=${METRICS_SERVER_IMAGE:-}

need() {
  command -v "$1" >/dev/null || { echo "make kind-up needs $1: $2" >&2; exit 3; }
}
need docker "install Docker Engine."
need kind "install it as https://kind.sigs.k8s.io says."
need kubectl "install it as https://kubernetes.io/docs/tasks/tools says."
need curl "install it; on Debian: apt-get install curl."
need sha256sum "install it; on Debian: apt-get install coreutils."
need helm "install Helm 3.14 or newer as https://helm.sh says."

case $engine in
  savedmodel | torchserve) ;;
  *) echo "ENGINE=$engine: kind-up knows savedmodel and torchserve, whose images are built here." >&2; exit 2 ;;
esac
[ -f "$model/manifest.json" ] || { echo "$model holds no export: run servestorm train and servestorm export." >&2; exit 2; }

images=(
  "servestorm/$engine:$version" "servestorm/generator:$version" "servestorm/haproxy:$version"
  "servestorm/prometheus:$version" "servestorm/models-$name:$version"
)
for image in "${images[@]}"; do
  docker image inspect "$image" >/dev/null 2>&1 || {
    echo "image $image is not here: make airgap-images, and for a model servestorm image $model." >&2
    exit 3
  }
done

case $metrics_server_image in
  "" | *@sha256:*) ;;
  *) echo "METRICS_SERVER_IMAGE=$metrics_server_image has no digest: write it as name@sha256:..." >&2; exit 2 ;;
esac

# Before anything is made: a manifest with another content is not applied.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
curl --fail --silent --show-error --location --proto '=https,file' --proto-redir '=https' --max-time 120 \
  --output "$work/metrics-server.yaml" "$metrics_server" || {
  echo "$metrics_server could not be downloaded: set METRICS_SERVER to file:///PATH of a copy." >&2
  exit 3
}
echo "$metrics_server_sha256  $work/metrics-server.yaml" | sha256sum --check --status || {
  echo "$metrics_server has not the SHA-256 $metrics_server_sha256, so it is not applied: if you chose another version," \
    "read it and set METRICS_SERVER_SHA256 to its SHA-256." >&2
  exit 3
}

kind get clusters 2>/dev/null | grep -qx servestorm || kind create cluster --config deploy/k8s/kind.yaml --wait 180s
kind load docker-image --name servestorm "${images[@]}"

# kind's kubelets sign their own certificates, which metrics-server does not trust by itself.
kubectl --context kind-servestorm apply -f "$work/metrics-server.yaml"
if [ -n "$metrics_server_image" ]; then
  kubectl --context kind-servestorm --namespace kube-system set image deployment/metrics-server "metrics-server=$metrics_server_image"
fi
kubectl --context kind-servestorm --namespace kube-system patch deployment metrics-server --type json --patch \
  '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--kubelet-insecure-tls"}]'

kubectl --context kind-servestorm create namespace servestorm --dry-run=client --output yaml \
  | kubectl --context kind-servestorm apply -f -
kubectl --context kind-servestorm label --overwrite namespace servestorm pod-security.kubernetes.io/enforce=restricted
helm upgrade --install servestorm deploy/k8s/servestorm --kube-context kind-servestorm --namespace servestorm \
  --values deploy/k8s/values/kind.yaml --set engine="$engine" \
  --set "models[0].name=$name" --set "models[0].source.image.repository=servestorm/models-$name" \
  --wait --timeout 10m
echo "make kind-down removes the cluster."
