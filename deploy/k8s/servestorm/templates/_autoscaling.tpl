{{/* What the names of the adapter's metrics begin with. */}}
{{- define "servestorm.metricPrefix" -}}
{{- ternary "torchserve" "tensorflow" (eq .Values.engine "torchserve") -}}
{{- end -}}

{{/* The metrics of the HorizontalPodAutoscaler, as a YAML list. */}}
{{- define "servestorm.targets" -}}
{{- $targets := .Values.autoscaling.targets -}}
{{- $prefix := include "servestorm.metricPrefix" . -}}
{{- with $targets.cpuPercent }}
- type: Resource
  resource:
    name: cpu
    target:
      type: Utilization
      averageUtilization: {{ int . }}
{{- end }}
{{- range $key, $metric := dict "requestsInFlight" "requests_in_flight" "requestsPerSecond" "requests_per_second" "requestsQueued" "requests_queued" }}
{{- with index $targets $key }}
- type: Pods
  pods:
    metric:
      name: {{ $prefix }}_{{ $metric }}
    target:
      type: AverageValue
      averageValue: {{ include "servestorm.quantity" . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A number as a Kubernetes quantity in thousandths: 2.5 is 2500m. */}}
{{- define "servestorm.quantity" -}}
{{- printf "%dm" (round (mulf (float64 .) 1000.0) 0 | int) | quote -}}
{{- end -}}

{{- define "servestorm.targets.rates" -}}
{{- $targets := .Values.autoscaling.targets -}}
{{- if or $targets.requestsInFlight $targets.requestsQueued $targets.requestsPerSecond -}}true{{- end -}}
{{- end -}}

{{- define "servestorm.adapterRules.on" -}}
{{- $asked := and .Values.autoscaling.enabled (eq (include "servestorm.targets.rates" .) "true") -}}
{{- $enabled := .Values.monitoring.adapterRules.enabled -}}
{{- if kindIs "invalid" $enabled -}}{{- if $asked -}}true{{- end -}}
{{- else if $enabled -}}true{{- end -}}
{{- end -}}

{{/*
Rules of prometheus-adapter. One adapter has one configuration for all releases, so it holds the rules of every engine.
A counter only grows: what an autoscaler may watch is its rate, over all series of a pod. Latency sums are microseconds;
seconds of latency a second are requests under way (Little's law). TensorFlow Serving counts the questions of probes too,
with an empty label API. TorchServe counts what it refuses and what its handler raises for, which it answers with 5xx.
*/}}
{{- define "servestorm.adapterRules" -}}
{{- $window := .Values.autoscaling.rateWindow -}}
rules:
{{- $series := list
  (list ":tensorflow:serving:request_latency_sum" `API!=""` "tensorflow_requests_in_flight" " / 1e6" "")
  (list ":tensorflow:serving:batching_session:queuing_latency_sum" "" "tensorflow_requests_queued" " / 1e6" "")
  (list ":tensorflow:serving:request_latency_count" `API!=""` "tensorflow_requests_per_second" "" "")
  (list "ts_inference_latency_microseconds" "" "torchserve_requests_in_flight" " / 1e6" "")
  (list "ts_queue_latency_microseconds" "" "torchserve_requests_queued" " / 1e6" "")
  (list "ts_inference_requests_total" "" "torchserve_requests_per_second" "" "Requests5XX") }}
{{- range $series }}
{{- $only := ternary "" (printf ",%s" (index . 1)) (empty (index . 1)) }}
{{- $rate := printf "sum by (<<.GroupBy>>) (rate(%%s{<<.LabelMatchers>>%s}[%s]))" $only $window }}
  - seriesQuery: '{{ index . 0 }}{namespace!="",pod!=""{{ $only }}}'
    resources:
      overrides:
        namespace: {resource: namespace}
        pod: {resource: pod}
    name:
      matches: ^(.*)$
      as: {{ index . 2 }}
    metricsQuery: {{ printf $rate "<<.Series>>" }}{{ index . 3 }}
{{- with index . 4 }} - {{ printf $rate . }} or {{ printf $rate "<<.Series>>" }}{{ end }}
{{- end }}
{{- end -}}
