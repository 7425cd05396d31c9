{{/* What differs between the engines, as YAML: ports, paths of looks, and whose API it is. */}}
{{- define "servestorm.engine" -}}
{{- if eq .Values.engine "torchserve" -}}
api: torchserve
rest: 8080
grpc: 7070
metrics: 8082
metricsPort: metrics
metricsPath: /metrics
alive: /ping
{{- else -}}
api: tensorflow
rest: 8501
grpc: 8500
metrics: 8501
metricsPort: rest
metricsPath: /monitoring/prometheus/metrics
alive: /v1/models/{{ (first .Values.models).name }}
{{- end -}}
{{- end -}}

{{- define "servestorm.server.ports" -}}
{{- $engine := include "servestorm.engine" . | fromYaml -}}
- name: rest
  containerPort: {{ $engine.rest }}
- name: grpc
  containerPort: {{ $engine.grpc }}
{{- if ne $engine.metricsPort "rest" }}
- name: metrics
  containerPort: {{ $engine.metrics }}
{{- end }}
{{- end -}}

{{/* Flags of TensorFlow Serving, which savedmodel-server takes too, and one of its own. */}}
{{- define "servestorm.tensorflow.args" -}}
- --model_config_file=/config/models.config
- --monitoring_config_file=/config/monitoring.config
- --tensorflow_intra_op_parallelism={{ include "servestorm.threads" . }}
- --tensorflow_inter_op_parallelism=1
- --rest_api_num_threads={{ include "servestorm.callThreads" . }}
- --grpc_max_threads={{ include "servestorm.grpcThreads" . }}
- --file_system_poll_wait_seconds={{ int .Values.pollSeconds }}
# A model that does not load is told at once and not after minutes: Kubernetes tries again.
- --max_num_load_retries=0
{{- if not .Values.warmup }}
- --enable_model_warmup=false
{{- end }}
{{- if gt (int .Values.batching.maxSize) 1 }}
- --enable_batching=true
- --batching_parameters_file=/config/batching.config
{{- end }}
{{- range .Values.models }}
{{- if .labels }}
- --allow_version_labels_for_unavailable_models=true
{{- break }}
{{- end }}
{{- end }}
{{- if eq .Values.engine "savedmodel" }}
- --drain_seconds={{ sub (int .Values.drain.finishSeconds) 2 }}
{{- end }}
{{- end -}}

{{- define "servestorm.tensorflow.env" -}}
- name: TF_CPP_MIN_LOG_LEVEL
  value: "1"
- name: OMP_NUM_THREADS
  value: {{ include "servestorm.threads" . | quote }}
- name: CUDA_VISIBLE_DEVICES
  value: ""
{{- end -}}

{{- define "servestorm.torchserve.env" -}}
- name: TS_CONFIG_FILE
  value: /config/config.properties
- name: OMP_NUM_THREADS
  value: {{ include "servestorm.workerThreads" . | quote }}
- name: MKL_NUM_THREADS
  value: {{ include "servestorm.workerThreads" . | quote }}
- name: JAVA_ACTIVE_PROCESSORS
  value: {{ include "servestorm.threads" . | quote }}
- name: SERVESTORM_WARMUP
  value: {{ ternary "1" "0" .Values.warmup | quote }}
- name: CUDA_VISIBLE_DEVICES
  value: ""
{{- end -}}

{{/*
When a replica can answer. TensorFlow Serving's status of a model is 200 also while it loads or has failed; its metadata
are there only while a version can be called. savedmodel-server's health covers all models. TorchServe's /ping says
Healthy while no worker can answer, so its workers' own state is asked.
*/}}
{{- define "servestorm.probe.ready" -}}
{{- $engine := include "servestorm.engine" . | fromYaml -}}
{{- if eq .Values.engine "torchserve" -}}
exec:
  command:
    - bash
    - -c
    - |
      {{- range .Values.models }}
      answers 8081 /models/{{ .name }} READY || exit 1
      {{- end }}
      : <> /dev/tcp/127.0.0.1/{{ $engine.grpc }}
{{- else if eq .Values.engine "savedmodel" -}}
grpc:
  port: {{ $engine.grpc }}
{{- else -}}
httpGet:
  port: rest
  path: /v1/models/{{ (first .Values.models).name }}/metadata
{{- end -}}
{{- end -}}

{{- define "servestorm.probe.times" -}}
periodSeconds: {{ int .periodSeconds }}
timeoutSeconds: {{ int .timeoutSeconds }}
failureThreshold: {{ int .failureThreshold }}
{{- end -}}

{{- define "servestorm.probes" -}}
{{- $engine := include "servestorm.engine" . | fromYaml -}}
startupProbe:
  {{- include "servestorm.probe.ready" . | nindent 2 }}
  {{- include "servestorm.probe.times" .Values.probes.startup | nindent 2 }}
readinessProbe:
  {{- include "servestorm.probe.ready" . | nindent 2 }}
  {{- include "servestorm.probe.times" .Values.probes.readiness | nindent 2 }}
livenessProbe:
  httpGet:
    port: rest
    path: {{ $engine.alive }}
  {{- include "servestorm.probe.times" .Values.probes.liveness | nindent 2 }}
{{- end -}}

{{/* TensorFlow Serving ends at once on SIGTERM, so the pod waits before it is sent. */}}
{{- define "servestorm.drainSeconds" -}}
{{- if kindIs "invalid" .Values.drain.beforeStopSeconds -}}
{{- ternary 40 15 (eq (include "servestorm.balanced" .) "true") -}}
{{- else -}}
{{- int .Values.drain.beforeStopSeconds -}}
{{- end -}}
{{- end -}}

{{/* Kubernetes sleeps itself from 1.30 on; before, the image's sleep does. */}}
{{- define "servestorm.preStop" -}}
{{- $seconds := include "servestorm.drainSeconds" . | int -}}
{{- if $seconds -}}
lifecycle:
  preStop:
    {{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
    sleep:
      seconds: {{ $seconds }}
    {{- else }}
    exec:
      command: [sleep, {{ $seconds | quote }}]
    {{- end }}
{{- end -}}
{{- end -}}
