{{/* A value as a command line wants it: whole numbers without an exponent. */}}
{{- define "servestorm.plain" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- define "servestorm.load.model" -}}
{{- .Values.load.model | default (first .Values.models).name -}}
{{- end -}}

{{/* The one model whose golden answers the load is held against, as what the helpers of models take. */}}
{{- define "servestorm.load.models" -}}
{{- $name := include "servestorm.load.model" . -}}
{{- range .Values.models }}{{ if eq .name $name }}{{ toYaml (list .) }}{{ end }}{{ end -}}
{{- end -}}

{{/* Arguments of Locust that say what is sent to whom. */}}
{{- define "servestorm.load.args" -}}
{{- $engine := include "servestorm.engine" . | fromYaml -}}
{{- $options := .Values.load.options -}}
{{- $model := include "servestorm.load.model" . -}}
{{- $ours := not .Values.load.target -}}
{{- $name := include "servestorm.fullname" . -}}
- --locustfile=loadtests/{{ .Values.load.locustfile }}.py
- --host={{ .Values.load.target | default (printf "http://%s:%v" $name $engine.rest) }}
- --model={{ $model }}
{{- if not (hasKey $options "engine") }}
- --engine={{ ternary .Values.engine "auto" $ours }}
{{- end }}
{{- if eq (get $options "protocol" | toString) "grpc" }}
{{- with .Values.load.grpcTarget | default (ternary (printf "%s:%v" $name $engine.grpc) "" $ours) }}
- --grpc-target={{ . }}
{{- end }}
{{- end }}
{{- if .Values.load.checkAnswers }}
- --manifest=/models/{{ $model }}/manifest.json
{{- end }}
# The pod's CPU is limited: what keeps a core awake would use it up.
- --keep-awake=off
- --metrics-host=0.0.0.0
- --metrics-port=9646
{{- range $flag, $value := $options }}
- --{{ $flag }}={{ include "servestorm.plain" $value }}
{{- end }}
{{- /* Kubernetes would put a variable's value in place of $(NAME). */ -}}
{{- range $name, $value := .Values.load.headers }}
- {{ printf "--header=%s=%s" $name $value | replace "$(" "$$(" | quote }}
{{- end }}
{{- end -}}

{{- define "servestorm.load.env" -}}
# The web UI asks nobody for a password: it listens inside the pod only, where kubectl port-forward reaches it.
- {name: LOCUST_WEB_HOST, value: 127.0.0.1}
- {name: LOCUST_MASTER_BIND_HOST, value: 0.0.0.0}
- name: POD_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
{{- end -}}

{{- define "servestorm.load.ports" -}}
- name: load-metrics
  containerPort: 9646
- name: master
  containerPort: 5557
{{- end -}}

{{/* Everything of a load pod but its containers and volumes: (dict "root" $ "job" true) */}}
{{- define "servestorm.load.pod" -}}
{{- $load := .root.Values.load -}}
serviceAccountName: {{ include "servestorm.serviceAccountName" .root }}
{{ include "servestorm.pod" . }}
{{- with include "servestorm.placement" $load | trim }}
{{ . }}
{{- end }}
{{- if $load.awayFromServers }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      {{- range $component, $weight := dict "server" 100 "load" 50 "load-worker" 50 "load-agent" 50 }}
      - weight: {{ $weight }}
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "servestorm.selector" (dict "root" $.root "component" $component) | nindent 14 }}
      {{- end }}
{{- end }}
{{- $models := dict "root" .root "models" (include "servestorm.load.models" .root | fromYamlArray) "resources" $load.resources }}
{{- $fetch := and $load.checkAnswers (eq (include "servestorm.models.fetched" $models) "true") }}
{{- if or $fetch .job }}
initContainers:
  {{- if $fetch }}
  {{- include "servestorm.models.init" $models | trim | nindent 2 }}
  {{- end }}
  {{- if .job }}
  - name: wait
    image: {{ include "servestorm.image" (dict "root" .root "image" .root.Values.images.generator) }}
    imagePullPolicy: {{ .root.Values.images.pullPolicy }}
    command: [sh, /scripts/wait.sh, {{ include "servestorm.load.look" .root | quote }}]
    {{- include "servestorm.models.initRest" $models | nindent 4 }}
      - {name: scripts, mountPath: /scripts, readOnly: true}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What must answer before a job begins: whatever lies behind a foreign address, and this release's servers. */}}
{{- define "servestorm.load.look" -}}
{{- $engine := include "servestorm.engine" . | fromYaml -}}
{{- if .Values.load.target -}}
{{- splitList "," .Values.load.target | first | trimSuffix "/" }}/
{{- else -}}
{{- printf "http://%s:%v%s" (include "servestorm.fullname" .) $engine.rest $engine.alive -}}
{{- end -}}
{{- end -}}

{{/* What a load container has besides command, arguments and ports. */}}
{{- define "servestorm.load.container" -}}
{{- $load := .Values.load -}}
image: {{ include "servestorm.image" (dict "root" . "image" .Values.images.generator) }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
{{- with $load.headersSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
env:
  {{- include "servestorm.load.env" . | nindent 2 }}
resources:
  {{- toYaml $load.resources | nindent 2 }}
securityContext:
  {{- include "servestorm.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: results, mountPath: /results}
  {{- if $load.checkAnswers }}
  {{- include "servestorm.models.mounts" (dict "models" (include "servestorm.load.models" . | fromYamlArray)) | trim | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* (dict "root" $ "job" true): only a job writes results, and waits for its target with a script. */}}
{{- define "servestorm.load.volumes" -}}
{{- $load := .root.Values.load -}}
{{- include "servestorm.tmp" .root }}
- name: results
{{- if and .job (or $load.results.claimName $load.results.size) }}
  persistentVolumeClaim:
    claimName: {{ $load.results.claimName | default (printf "%s-results" (include "servestorm.fullname" .root)) }}
{{- else }}
  emptyDir:
    sizeLimit: {{ .root.Values.storage.tmp }}
{{- end }}
{{- $models := ternary (include "servestorm.load.models" .root | fromYamlArray) list $load.checkAnswers }}
{{- include "servestorm.models.volumes" (dict "root" .root "models" $models "scripts" .job) }}
{{- end -}}

{{/* The job's pod, whose hash is part of the job's name: a job cannot be changed, so a changed one is a new one. */}}
{{- define "servestorm.load.jobPod" -}}
{{- $load := .Values.load -}}
{{- include "servestorm.load.pod" (dict "root" . "component" "load" "job" true) }}
restartPolicy: Never
terminationGracePeriodSeconds: 30
containers:
  - name: load
    {{- if $load.results.holdSeconds }}
    command:
      - tini
      - --
      - sh
      - -c
      - 'locust "$@"; verdict=$?; echo "servestorm: exit code $verdict; results stay for {{ int $load.results.holdSeconds }} s"; sleep {{ int $load.results.holdSeconds }}; exit $verdict'
      - locust
    {{- end }}
    args:
      {{- include "servestorm.load.args" . | nindent 6 }}
      - --headless
      - --out=/results/$(POD_NAME)
      {{- if $load.workers }}
      - --master
      - --expect-workers={{ int $load.workers }}
      - --expect-workers-max-wait=300
      {{- end }}
    ports:
      {{- include "servestorm.load.ports" . | nindent 6 }}
    {{- include "servestorm.load.container" . | nindent 4 }}
volumes:
  {{- include "servestorm.load.volumes" (dict "root" . "job" true) | nindent 2 }}
{{- end -}}

{{/* A worker's pod: (dict "root" $ "restart" "Never") */}}
{{- define "servestorm.load.workerPod" -}}
{{- include "servestorm.load.pod" (dict "root" .root "component" "load-worker") }}
restartPolicy: {{ .restart }}
terminationGracePeriodSeconds: 30
containers:
  - name: worker
    args:
      - --locustfile=loadtests/{{ .root.Values.load.locustfile }}.py
      - --worker
      - --master-host={{ include "servestorm.fullname" .root }}-load
    {{- include "servestorm.load.container" .root | nindent 4 }}
volumes:
  {{- include "servestorm.load.volumes" (dict "root" .root "job" false) | nindent 2 }}
{{- end -}}

{{- define "servestorm.load.web" -}}
{{- if and .Values.load.enabled (eq .Values.load.mode "web") -}}true{{- end -}}
{{- end -}}

{{- define "servestorm.load.agents" -}}
{{- if and .Values.load.enabled (eq .Values.load.mode "agents") -}}true{{- end -}}
{{- end -}}

{{- define "servestorm.load.job" -}}
{{- if and .Values.load.enabled (eq .Values.load.mode "job") -}}true{{- end -}}
{{- end -}}
