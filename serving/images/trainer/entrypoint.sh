#!/bin/sh
# Without arguments: train and export MODEL_NAME to MODEL_BASE_PATH, unless it lies there already; what lies there must be
# whole and what is asked for (model_volume.py). With arguments: `servestorm ARGUMENTS`.
set -eu
if [ $# -gt 0 ]; then
  exec servestorm "$@"
fi
models=${MODEL_BASE_PATH:-/models}
recipe="EPOCHS=$EPOCHS DATASET=$DATASET SEED=$SEED"
network=${NETWORK:-cnn}
[ "$network" = cnn ] || recipe="$recipe NETWORK=$network" # as volumes that are older than other networks have it
[ -z "${SIZE:-}" ] || recipe="$recipe SIZE=$SIZE"
volume() { python -P "${0%/*}/model_volume.py" "$1" "$models" "$MODEL_NAME" "$recipe"; }

state=0
volume check || state=$?
case $state in
  0)
    echo "trainer: $models/$MODEL_NAME is there already; nothing to do."
    exit 0
    ;;
  4) ;;
  *) exit "$state" ;;
esac
if [ ! -w "$models" ]; then
  echo "trainer: user 10001 may not write to $models: mount a volume that it owns, or run chown 10001:10001 on the folder." >&2
  exit 3
fi
data="--dataset $DATASET --seed $SEED ${DATA_DIR:+--data-dir $DATA_DIR}"
# One framework trains; both artifacts get its weights, and the export proves that they answer alike.
# shellcheck disable=SC2086
servestorm train $data --network "$network" ${SIZE:+--size "$SIZE"} --framework keras --epochs "$EPOCHS" --out /tmp/weights 2>&1
# shellcheck disable=SC2086
servestorm export $data --name "$MODEL_NAME" --weights /tmp/weights --weights-from keras --out "$models" 2>&1
volume record
