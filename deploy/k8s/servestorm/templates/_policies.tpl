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

{{/* The servers and the balancer of this release. Numbers and no names: each port is the same in both. */}}
{{- define "servestorm.egress.release" -}}
{{- $engine := include "servestorm.engine" . | fromYaml -}}
- ports:
    - {protocol: TCP, port: {{ $engine.rest }}}
    - {protocol: TCP, port: {{ $engine.grpc }}}
  to:
    {{- include "servestorm.peers.own" (dict "root" . "component" "server") | nindent 4 }}
    {{- if eq (include "servestorm.balanced" .) "true" }}
    {{- include "servestorm.peers.own" (dict "root" . "component" "balancer") | nindent 4 }}
    {{- end }}
{{- end -}}

{{/*
Where the downloads of models lead: any address but the link-local ones, at which clouds give credentials away, unless
download.allowLinkLocal; nothing where no model has a URL: (dict "root" $ "models" .Values.models).
A block of addresses does not cover pods in every network, so namespaces are named too. Buckets are read with the pod's
identity, which these link-local addresses give: EKS Pod Identity's and EC2's, and GKE's.
*/}}
{{- define "servestorm.egress.downloads" -}}
{{- $local := .root.Values.download.allowLinkLocal -}}
{{- $schemes := list -}}
{{- range .models }}{{ with .source.url }}{{ $schemes = append $schemes (index (splitList ":" .url) 0) }}{{ end }}{{ end -}}
{{- if $schemes }}
- ports:
    - {protocol: TCP, port: 80}
    - {protocol: TCP, port: 443}
    {{- range $port := include "servestorm.models.ports" . | fromYamlArray }}
    - {protocol: TCP, port: {{ $port }}}
    {{- end }}
  {{- if not $local }}
  to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
    - ipBlock: {cidr: "::/0", except: ["fe80::/10"]}
    - namespaceSelector: {}
  {{- end }}
{{- end }}
{{- if has "s3" $schemes }}
- ports:
    - {protocol: TCP, port: 80}
  to:
    - ipBlock: {cidr: 169.254.170.23/32}
    - ipBlock: {cidr: 169.254.169.254/32}
{{- end }}
{{- if has "gs" $schemes }}
- ports:
    - {protocol: TCP, port: 80}
    - {protocol: TCP, port: 988}
  to:
    - ipBlock: {cidr: 169.254.169.252/32}
    - ipBlock: {cidr: 169.254.169.254/32}
{{- end }}
{{- end -}}
