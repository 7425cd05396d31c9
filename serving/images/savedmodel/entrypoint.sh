#!/bin/sh
# Takes MODEL_NAME, MODEL_BASE_PATH and flags as tensorflow/serving's entry point does; a later flag wins.
# Logs go to standard output; after SIGTERM requests under way get 4 s, less than the 10 that Docker waits.
exec /opt/servestorm/bin/python -P -m serving.savedmodel_server \
  --bind_address=0.0.0.0 --port=8500 --rest_api_port=8501 --drain_seconds=4 \
  --model_name="$MODEL_NAME" --model_base_path="$MODEL_BASE_PATH/$MODEL_NAME" "$@" 2>&1
