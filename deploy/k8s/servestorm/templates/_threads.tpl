{{/* Thousandths of a CPU in a quantity such as 500m, 1.5 or 2. */}}
{{- define "servestorm.millicores" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}
{{- trimSuffix "m" $text | int -}}
{{- else -}}
{{- round (mulf (float64 $text) 1000.0) 0 | int -}}
{{- end -}}
{{- end -}}

{{/* Whole CPUs in the limit of `resources`, at least 1: more threads than that would be throttled. */}}
{{- define "servestorm.wholeCpus" -}}
{{- max 1 (div (include "servestorm.millicores" .limits.cpu | int) 1000) -}}
{{- end -}}

{{- define "servestorm.threads" -}}
{{- .Values.threads | default (include "servestorm.wholeCpus" .Values.resources) -}}
{{- end -}}

{{/* Threads of one of TorchServe's workers. */}}
{{- define "servestorm.workerThreads" -}}
{{- max 1 (div (include "servestorm.threads" . | int) (int .Values.workers)) -}}
{{- end -}}

{{/*
A limit for gRPC calls in flight that no load meets: TensorFlow Serving refuses calls beyond it, and its default is 4 a
core. A thread is made when a call needs it.
*/}}
{{- define "servestorm.grpcThreads" -}}
16384
{{- end -}}

{{/* REST calls that a TensorFlow server handles at a time, others wait: they mostly wait, and two batches must be on their way. */}}
{{- define "servestorm.callThreads" -}}
{{- $filled := mul 2 (int .Values.batching.maxSize) (int .Values.workers) -}}
{{- min 256 (max 16 (mul 4 (include "servestorm.threads" . | int)) $filled) -}}
{{- end -}}
