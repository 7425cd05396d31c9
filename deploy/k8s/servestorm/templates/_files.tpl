{{/* The engine's configuration files: the data of its ConfigMap. */}}
{{- define "servestorm.files" -}}
{{- if eq .Values.engine "torchserve" -}}
config.properties: |
  {{- include "servestorm.file.properties" . | nindent 2 }}
{{- else -}}
models.config: |
  {{- include "servestorm.file.models" . | nindent 2 }}
monitoring.config: |
  prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }
{{- if gt (int .Values.batching.maxSize) 1 }}
batching.config: |
  {{- include "servestorm.file.batching" . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "servestorm.file.models" -}}
model_config_list {
{{- range .Values.models }}
  config {
    name: {{ .name | quote }}
    base_path: {{ printf "/models/%s" .name | quote }}
    model_platform: "tensorflow"
    {{- if .versions }}
    model_version_policy { specific { {{ range .versions }}versions: {{ int . }} {{ end }}} }
    {{- end }}
    {{- range $label, $version := .labels }}
    version_labels { key: {{ $label | quote }} value: {{ int $version }} }
    {{- end }}
  }
{{- end }}
}
{{- end -}}

{{/* A request with more images than a batch is split: without that it would be refused. */}}
{{- define "servestorm.file.batching" -}}
max_batch_size { value: {{ max 1024 (int .Values.batching.maxSize) }} }
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: {{ int .Values.batching.maxSize }} }
batch_timeout_micros { value: {{ int .Values.batching.timeoutMicros }} }
max_enqueued_batches { value: {{ max 1 (div (int .Values.batching.queueSize) (int .Values.batching.maxSize)) }} }
num_batch_threads { value: {{ int .Values.workers }} }
{{- end -}}

{{- define "servestorm.file.properties" -}}
{{- $engine := include "servestorm.engine" . | fromYaml -}}
inference_address=http://0.0.0.0:{{ $engine.rest }}
metrics_address=http://0.0.0.0:{{ $engine.metrics }}
grpc_inference_address=0.0.0.0
grpc_inference_port={{ $engine.grpc }}
# Who may manage models is in the pod; from outside nobody can, so no caller needs a token.
management_address=http://127.0.0.1:8081
grpc_management_address=127.0.0.1
grpc_management_port=7071
enable_model_api=false
disable_token_authorization=true
enable_envvars_config=false
install_py_dep_per_model=false
allowed_urls=file://.*
model_store=/model-store
workflow_store=/tmp/workflows
# A model-config.yaml in an archive would overrule `models`, but not a snapshot.
model_snapshot={{ include "servestorm.file.modelSnapshot" . }}
initial_worker_port=9000
number_of_gpu=0
number_of_netty_threads={{ include "servestorm.threads" . }}
netty_client_threads={{ include "servestorm.threads" . }}
use_native_io=true
job_queue_size={{ int .Values.batching.queueSize }}
max_request_size=268435456
max_response_size=268435456
metrics_mode=prometheus
metrics_config=/etc/servestorm/metrics.yaml
disable_system_metrics=true
{{- end -}}

{{/*
The models with their settings. Delays are whole milliseconds, rounded up. TorchServe takes a version from its archive,
whatever its key is here. A start is ended by the startup probe, not by TorchServe.
*/}}
{{- define "servestorm.file.modelSnapshot" -}}
{{- $delay := max 1 (div (add (int .Values.batching.timeoutMicros) 999) 1000) -}}
{{- $models := dict -}}
{{- range .Values.models -}}
{{- $own := dict "defaultVersion" true "marName" (printf "%s.mar" .name)
      "minWorkers" (int $.Values.workers) "maxWorkers" (int $.Values.workers)
      "batchSize" (int $.Values.batching.maxSize) "maxBatchDelay" $delay
      "responseTimeout" 120 "startupTimeout" 3600 -}}
{{- $_ := set $models .name (dict "1.0" $own) -}}
{{- end -}}
{{- toJson (dict "name" "servestorm" "modelCount" (len .Values.models) "models" $models) -}}
{{- end -}}
