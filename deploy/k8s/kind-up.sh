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
metrics_server=${METRICS_SERVER:-https://github.com/kubernetes-sigs/metrics-server/releases/download/v0.8.0/components.yaml}

need() {
  command -v "$1" >/dev/null || { echo "make kind-up needs $1: $2" >&2; exit 3; }
}
need docker "install Docker Engine."
need kind "install it as https://kind.sigs.k8s.io says."
need kubectl "install it as https://kubernetes.io/docs/tasks/tools says."
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

kind get clusters 2>/dev/null | grep -qx servestorm || kind create cluster --config deploy/k8s/kind.yaml --wait 180s
kind load docker-image --name servestorm "${images[@]}"

# kind's kubelets sign their own certificates, which metrics-server does not trust by itself.
kubectl --context kind-servestorm apply -f "$metrics_server"
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
