{{/* What the schema cannot say: one sentence with the remedy. */}}
{{- define "servestorm.checks" -}}
{{- $names := list -}}
{{- range .Values.models -}}
{{- if has .name $names -}}
{{- fail (printf "Two models are named %s: give each a name of its own." .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- if and .source.url (eq $.Values.engine "torchserve" | not) (hasSuffix ".mar" (include "servestorm.models.fileName" .source.url.url)) -}}
{{- fail (printf "Model %s is a TorchServe archive (.mar), which engine %s cannot serve: set engine to torchserve, or give the URL of a .tar.gz with a SavedModel." .name $.Values.engine) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.load.model (not (has .Values.load.model $names)) -}}
{{- fail (printf "load.model %s is none of the models (%s): correct one of them." .Values.load.model (join ", " $names)) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas is %d, more than maxReplicas (%d): lower it." (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not (include "servestorm.targets" . | fromYamlArray)) -}}
{{- fail "autoscaling is on and has no target: set one of autoscaling.targets." -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.autoscaling.targets.requestsQueued (ne .Values.engine "torchserve") (eq (int .Values.batching.maxSize) 1) -}}
{{- fail "autoscaling.targets.requestsQueued needs a queue, which this engine has only with batching: set batching.maxSize over 1." -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.prometheus.enabled (eq .Values.prometheus.discovery "dns") (eq (include "servestorm.targets.rates" .) "true") -}}
{{- fail "autoscaling by rates needs the names of pods, which prometheus.discovery dns does not tell: set it to kubernetes." -}}
{{- end -}}
{{- $most := .Values.autoscaling.enabled | ternary .Values.autoscaling.maxReplicas .Values.replicas | int -}}
{{- if and (eq (include "servestorm.balanced" .) "true") (gt $most (int .Values.balancer.slots)) -}}
{{- fail (printf "There can be %d replicas and the balancer has %d slots: raise balancer.slots." $most (int .Values.balancer.slots)) -}}
{{- end -}}
{{- if and .Values.load.enabled (ne .Values.load.mode "job") (eq (int .Values.load.workers) 0) -}}
{{- fail (printf "load.mode %s needs at least one worker: set load.workers to 1 or more." .Values.load.mode) -}}
{{- end -}}
{{- range $name, $value := .Values.load.headers -}}
{{- $secret := regexMatch "(?i)(^|[^a-z])auth([^a-z]|$)|authori[sz]|authenti|cookie|token([^s]|$)|secret|passw|credential|session|signature|(api|access|subscription|functions)[-_]?key" $name -}}
{{- $variable := regexMatch "^([A-Za-z][A-Za-z0-9_-]* +)?env:" $value -}}
{{- if regexMatch "^([A-Za-z][A-Za-z0-9_-]* +)?file:" $value -}}
{{- fail (printf "load.headers.%s refers to a file, of which the load's pods have none: put it into a Secret, and write env:KEY and load.headersSecret." $name) -}}
{{- end -}}
{{- if and $variable (not $.Values.load.headersSecret) -}}
{{- fail (printf "load.headers.%s refers to a variable: name the Secret that holds it in load.headersSecret." $name) -}}
{{- end -}}
{{- if and $secret (not $variable) -}}
{{- fail (printf "load.headers.%s holds a secret that everyone could read who may see pods: put it into a Secret, and write env:KEY and load.headersSecret." $name) -}}
{{- end -}}
{{- end -}}
{{- if eq (include "servestorm.load.job" .) "true" -}}
{{- $options := .Values.load.options -}}
{{- $needs := addf (get $options "duration" | float64) (get $options "warmup" | float64) (float64 .Values.load.results.holdSeconds) -}}
{{- if ge $needs (float64 .Values.load.deadlineSeconds) -}}
{{- fail (printf "The load takes %v s and load.deadlineSeconds is %d: raise it, or the job is ended before its verdict." $needs (int .Values.load.deadlineSeconds)) -}}
{{- end -}}
{{- end -}}
{{- if gt (int .Values.workers) (include "servestorm.threads" . | int) -}}
{{- fail (printf "There are %d workers for %s threads: raise resources.limits.cpu or lower workers." (int .Values.workers) (include "servestorm.threads" .)) -}}
{{- end -}}
{{- end -}}
