{{/* By the pods of the namespace, or by the addresses behind the headless Services: (dict "root" $ "component" "server" "service" "-headless" "port" "rest" "number" 8501) */}}
{{- define "servestorm.prometheus.discovery" -}}
{{- if eq .root.Values.prometheus.discovery "dns" -}}
dns_sd_configs:
  - names: [{{ include "servestorm.fullname" .root }}{{ .service }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}]
    type: A
    port: {{ .number }}
    refresh_interval: {{ .root.Values.prometheus.scrapeInterval }}
relabel_configs:
  - {target_label: namespace, replacement: {{ .root.Release.Namespace }}}
{{- else -}}
kubernetes_sd_configs:
  - role: pod
    namespaces: {own_namespace: true}
    selectors:
      - role: pod
        label: app.kubernetes.io/name={{ .root.Chart.Name }},app.kubernetes.io/instance={{ .root.Release.Name }},app.kubernetes.io/component={{ .component }}
relabel_configs:
  - {source_labels: [__meta_kubernetes_pod_container_port_name], regex: {{ .port }}, action: keep}
  - {source_labels: [__meta_kubernetes_pod_phase], regex: Pending|Succeeded|Failed, action: drop}
  - {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
  - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
  - {source_labels: [__meta_kubernetes_pod_node_name], target_label: node}
{{- end -}}
{{- end -}}

{{- define "servestorm.file.prometheus" -}}
{{- $engine := include "servestorm.engine" . | fromYaml -}}
global:
  scrape_interval: {{ .Values.prometheus.scrapeInterval }}
  scrape_timeout: {{ .Values.prometheus.scrapeInterval }}
scrape_configs:
{{- range list
  (dict "component" "server" "path" $engine.metricsPath "port" $engine.metricsPort "number" $engine.metrics "service" "-headless")
  (dict "component" "balancer" "path" "/metrics" "port" "statistics" "number" 8404 "service" "-balancer")
  (dict "component" "load" "path" "/metrics" "port" "load-metrics" "number" 9646 "service" "-load") }}
  - job_name: {{ .component }}
    metrics_path: {{ .path }}
    {{- include "servestorm.prometheus.discovery" (merge . (dict "root" $)) | nindent 4 }}
{{- end }}
{{- end -}}

{{/* True where Prometheus asks the API server for pods. */}}
{{- define "servestorm.prometheus.asks" -}}
{{- if and .Values.prometheus.enabled (eq .Values.prometheus.discovery "kubernetes") -}}true{{- end -}}
{{- end -}}

{{/*
What its data may take, as Prometheus's flag wants it: 80 % of its volume. The block that a compaction is writing is not
counted, and a pod whose volume is over its limit is evicted with all its data.
*/}}
{{- define "servestorm.prometheus.size" -}}
{{- mulf (include "servestorm.bytes" .Values.prometheus.storage | float64) 0.8 | int64 -}}B
{{- end -}}
