{{/* Peers that may send requests; nothing is everybody. */}}
{{- define "servestorm.peers.clients" -}}
{{- if .Values.networkPolicy.from -}}
{{- toYaml .Values.networkPolicy.from }}
# The release's own load and test come along.
- podSelector:
    matchLabels:
      app.kubernetes.io/name: {{ .Chart.Name }}
      app.kubernetes.io/instance: {{ .Release.Name }}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: [load, load-worker, load-agent, test]}
{{- else if ne (include "servestorm.reachedFromOutside" .) "true" -}}
- podSelector: {}
{{- end -}}
{{- end -}}

{{/* One component of this release: (dict "root" $ "component" "server") */}}
{{- define "servestorm.peers.own" -}}
- podSelector:
    matchLabels:
      {{- include "servestorm.selector" . | nindent 6 }}
{{- end -}}

{{/* Peers that may read metrics; nothing is nobody. */}}
{{- define "servestorm.peers.monitors" -}}
{{- if .Values.prometheus.enabled }}
{{ include "servestorm.peers.own" (dict "root" . "component" "prometheus") }}
{{- end }}
{{- if .Values.networkPolicy.metricsFrom }}
{{ toYaml .Values.networkPolicy.metricsFrom }}
{{- else if or .Values.monitoring.serviceMonitor.enabled .Values.monitoring.podMonitor.enabled }}
- namespaceSelector: {}
{{- end }}
{{- end -}}

{{- define "servestorm.egress.dns" -}}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}
