#!/bin/sh
# Starts TorchServe's Java front end itself: the `torchserve` script would put it into the background and stand between
# it and the signals. The model comes from MODEL_NAME and MODEL_BASE_PATH unless TS_CONFIG_FILE names a configuration, in
# which @MODEL_NAME@ is replaced by MODEL_NAME.
set -e
mkdir -p /tmp/workflows /tmp/logs
if [ -z "$TS_CONFIG_FILE" ]; then
  TS_CONFIG_FILE=/etc/servestorm/config.properties
  set -- --model-store "$MODEL_BASE_PATH/$MODEL_NAME" --models "$MODEL_NAME=$MODEL_NAME.mar" "$@"
elif grep -q '@MODEL_NAME@' "$TS_CONFIG_FILE"; then
  case $MODEL_NAME in
    '' | *[!A-Za-z0-9._-]*)
      echo "torchserve: MODEL_NAME is \"$MODEL_NAME\", which names no model: use letters, digits, '.', '_' and '-'." >&2
      exit 2
      ;;
  esac
  sed "s/@MODEL_NAME@/$MODEL_NAME/g" "$TS_CONFIG_FILE" >"$HOME/config.properties"
  TS_CONFIG_FILE=$HOME/config.properties
fi
# Exported, because TorchServe prefers these to its configuration file.
export TS_CONFIG_FILE TS_MODEL_SERVER_HOME=/opt/torchserve LOG_LOCATION=/tmp/logs METRICS_LOCATION=/tmp/logs TEMP=/tmp TMPDIR=/tmp
exec java ${JAVA_ACTIVE_PROCESSORS:+-XX:ActiveProcessorCount=$JAVA_ACTIVE_PROCESSORS} \
  -XX:+ExitOnOutOfMemoryError -XX:-UsePerfData -Djava.library.path=/opt/netty \
  -Dmodel_server_home=/opt/torchserve -Djava.io.tmpdir=/tmp \
  -Dlog4j.configurationFile="${LOG4J_CONFIG_FILE:-/etc/servestorm/log4j2.xml}" \
  -cp '/opt/torchserve/ts/frontend/*' org.pytorch.serve.ModelServer \
  --python "$TS_PYTHON" -f "$TS_CONFIG_FILE" -ncs "$@"
