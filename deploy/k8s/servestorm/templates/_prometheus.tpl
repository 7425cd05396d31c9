{{- define "servestorm.file.prometheus" -}}
{{- $engine := include "servestorm.engine" . | fromYaml -}}
global:
  scrape_interval: {{ .Values.prometheus.scrapeInterval }}
  scrape_timeout: {{ .Values.prometheus.scrapeInterval }}
scrape_configs:
{{- range list
  (list "server" $engine.metricsPort $engine.metricsPath)
  (list "balancer" "statistics" "/metrics")
  (list "load" "load-metrics" "/metrics") }}
  - job_name: {{ index . 0 }}
    metrics_path: {{ index . 2 }}
    kubernetes_sd_configs:
      - role: pod
        namespaces: {own_namespace: true}
        selectors:
          - role: pod
            label: app.kubernetes.io/name={{ $.Chart.Name }},app.kubernetes.io/instance={{ $.Release.Name }},app.kubernetes.io/component={{ index . 0 }}
    relabel_configs:
      - source_labels: [__meta_kubernetes_pod_container_port_name]
        regex: {{ index . 1 }}
        action: keep
      - {source_labels: [__meta_kubernetes_pod_phase], regex: Pending|Succeeded|Failed, action: drop}
      - {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
      - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
      - {source_labels: [__meta_kubernetes_pod_node_name], target_label: node}
{{- end }}
{{- end -}}
