{{/* True where models are copied or downloaded into the pod. */}}
{{- define "servestorm.models.fetched" -}}
{{- range .models }}{{ if not .source.pvc }}true{{ break }}{{ end }}{{ end -}}
{{- end -}}

{{- define "servestorm.models.downloaded" -}}
{{- range .models }}{{ if .source.url }}true{{ break }}{{ end }}{{ end -}}
{{- end -}}

{{/* Last part of a URL's path: a query, as signed URLs have one, is no part of it. */}}
{{- define "servestorm.models.fileName" -}}
{{- regexReplaceAll "[?#].*$" . "" | base -}}
{{- end -}}

{{/* One init container an image, two a URL: (dict "root" $ "models" .Values.models "resources" .Values.resources) */}}
{{- define "servestorm.models.init" -}}
{{- $all := . -}}
{{- range $index, $model := .models }}
{{- if $model.source.image }}
- name: model-{{ $index }}
  image: {{ include "servestorm.image" (dict "root" $all.root "image" $model.source.image) }}
  imagePullPolicy: {{ $all.root.Values.images.pullPolicy }}
  # Not cp -a: nobody may set the times of the volume's own root.
  command: [cp, -R, /models/., /target]
  {{- include "servestorm.models.initRest" $all | nindent 2 }}
    - {name: models, mountPath: /target}
{{- else if $model.source.url }}
{{- $url := $model.source.url }}
{{- $scheme := ternary "http" (index (splitList ":" $url.url) 0) (hasPrefix "http" $url.url) }}
- name: download-{{ $index }}
  image: {{ include "servestorm.image" (dict "root" $all.root "image" (index $all.root.Values.images $scheme)) }}
  imagePullPolicy: {{ $all.root.Values.images.pullPolicy }}
  command: [sh, /scripts/download.sh, {{ $url.url | quote }}, /target/.download-{{ $index }}]
  {{- if $url.credentialsSecret }}
  envFrom:
    - secretRef:
        name: {{ $url.credentialsSecret }}
  {{- end }}
  env:
    - {name: HOME, value: /tmp}
    - {name: CLOUDSDK_CONFIG, value: /tmp/gcloud}
    {{- with $all.root.Values.download }}
    - {name: DOWNLOAD_CONNECT_SECONDS, value: {{ int .connectSeconds | quote }}}
    - {name: DOWNLOAD_TOTAL_SECONDS, value: {{ int .totalSeconds | quote }}}
    - {name: DOWNLOAD_LINK_LOCAL, value: {{ .allowLinkLocal | quote }}}
    {{- end }}
    - {name: DOWNLOAD_MAX_BYTES, value: {{ include "servestorm.bytes" $all.root.Values.storage.models | quote }}}
  {{- include "servestorm.models.initRest" $all | nindent 2 }}
    - {name: models, mountPath: /target}
    - {name: scripts, mountPath: /scripts, readOnly: true}
- name: unpack-{{ $index }}
  image: {{ include "servestorm.image" (dict "root" $all.root "image" $all.root.Values.images.http) }}
  imagePullPolicy: {{ $all.root.Values.images.pullPolicy }}
  command: [sh, /scripts/unpack.sh, {{ $model.name | quote }}, /target/.download-{{ $index }}, {{ $url.sha256 | quote }}, {{ include "servestorm.models.fileName" $url.url | quote }}, /target]
  {{- include "servestorm.models.initRest" $all | nindent 2 }}
    - {name: models, mountPath: /target}
    - {name: scripts, mountPath: /scripts, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{- define "servestorm.models.initRest" -}}
securityContext:
  {{- include "servestorm.containerSecurity" . | nindent 2 }}
resources:
  {{- toYaml .resources | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- end -}}

{{/* Where each model lies for who reads it: its folder, or for TorchServe its archive. */}}
{{- define "servestorm.models.mounts" -}}
{{- range $index, $model := .models }}
{{- if $model.source.pvc }}
- name: claim-{{ $index }}
  mountPath: /models/{{ $model.name }}
  {{- with $model.source.pvc.subPath }}
  subPath: {{ . }}
  {{- end }}
{{- else }}
- name: models
  mountPath: /models/{{ $model.name }}
  subPath: {{ $model.name }}
{{- end }}
  readOnly: true
{{- end }}
{{- end -}}

{{- define "servestorm.models.archiveMounts" -}}
{{- range $index, $model := .models }}
{{- $archive := printf "%s.mar" $model.name }}
{{- if $model.source.pvc }}
- name: claim-{{ $index }}
  subPath: {{ list $model.source.pvc.subPath $archive | compact | join "/" }}
{{- else }}
- name: models
  subPath: {{ $model.name }}/{{ $archive }}
{{- end }}
  mountPath: /model-store/{{ $archive }}
  readOnly: true
{{- end }}
{{- end -}}

{{- define "servestorm.models.volumes" -}}
{{- if eq (include "servestorm.models.fetched" .) "true" }}
- name: models
  emptyDir:
    sizeLimit: {{ .root.Values.storage.models }}
{{- end }}
{{- if or .scripts (eq (include "servestorm.models.downloaded" .) "true") }}
- name: scripts
  configMap:
    name: {{ include "servestorm.fullname" .root }}-scripts
{{- end }}
{{- range $index, $model := .models }}
{{- if $model.source.pvc }}
- name: claim-{{ $index }}
  persistentVolumeClaim:
    claimName: {{ $model.source.pvc.claimName }}
    readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{/* Ports of the models' URLs that are neither 80 nor 443, as a YAML list: (dict "models" .Values.models) */}}
{{- define "servestorm.models.ports" -}}
{{- $ports := list -}}
{{- range .models -}}
{{- if .source.url -}}
{{- $port := regexFind ":[0-9]+$" (urlParse .source.url.url).host | trimPrefix ":" -}}
{{- if and $port (not (has $port (list "80" "443"))) -}}{{- $ports = append $ports (int $port) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml (uniq $ports) -}}
{{- end -}}
