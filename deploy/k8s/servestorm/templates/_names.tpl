{{- define "servestorm.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change, so that they may select: (dict "root" $ "component" "server") */}}
{{- define "servestorm.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "servestorm.labels" -}}
{{ include "servestorm.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: servestorm
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Name, namespace and labels: (dict "root" $ "component" "server" "suffix" "-headless") */}}
{{- define "servestorm.metadata" -}}
name: {{ include "servestorm.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "servestorm.labels" . | nindent 2 }}
{{- end -}}

{{- define "servestorm.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "servestorm.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Reference of an image: (dict "root" $ "image" .Values.images.generator) */}}
{{- define "servestorm.image" -}}
{{- $repository := .image.repository -}}
{{- if and .root.Values.images.registry (hasPrefix "servestorm/" $repository) -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .root.Values.images.registry) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* True where requests pass through HAProxy. */}}
{{- define "servestorm.balanced" -}}
{{- $many := or (gt (int .Values.replicas) 1) .Values.autoscaling.enabled -}}
{{- if or (eq .Values.balancer.mode "always") (and (eq .Values.balancer.mode "auto") $many) -}}true{{- end -}}
{{- end -}}

{{- define "servestorm.reachedFromOutside" -}}
{{- if ne .Values.service.type "ClusterIP" -}}true{{- end -}}
{{- end -}}

{{/* Bytes in a quantity such as 512Mi, 1.5Gi or 2G. */}}
{{- define "servestorm.bytes" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $factors := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- mulf $number (regexFind "[A-Za-z]*$" . | get $factors | default 1 | float64) | int64 -}}
{{- end -}}
