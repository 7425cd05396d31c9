{{- define "servestorm.file.haproxy" -}}
{{- $engine := include "servestorm.engine" . | fromYaml -}}
{{- $host := printf "%s-headless.%s.svc.%s" (include "servestorm.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- $slots := int .Values.balancer.slots -}}
{{- $look := printf "http-check send meth GET uri %s ver HTTP/1.1 hdr Host localhost" $engine.alive -}}
# Each request goes to the replica with the fewest under way. The headless Service's name leads to the replicas that
# are ready; what is added is used once it passes its check, and what goes is forgotten.

global
    log stdout format raw local0 notice
    maxconn 4096
    nbthread {{ include "servestorm.wholeCpus" .Values.balancer.resources }}
    # Only a request that fits into a buffer can be sent again: 64 KiB hold a small image in base64.
    tune.bufsize 65536
    hard-stop-after 30s

resolvers cluster
    parse-resolv-conf
    accepted_payload_size 8192
    resolve_retries 3
    timeout resolve 1s
    timeout retry 500ms
    hold valid 1s
    hold obsolete 1s
    # A DNS that does not answer for a moment must not take every replica away.
    hold timeout 60s
    hold refused 60s

defaults
    mode http
    log global
    option dontlog-normal
    option httplog
    option redispatch 1
    option httpchk
    balance leastconn
    # An answer is computed from the request alone, so it may be asked for again, elsewhere, when a replica dies under
    # it. An answer with an error in it is never asked for again: it is the replica's answer.
    retry-on conn-failure empty-response
    retries 2
    # What was passed on before its end had come could not be asked for again.
    option http-buffer-request
    http-reuse always
    timeout connect 1s
    timeout queue 10s
    timeout server 60s
    timeout client 60s
    timeout http-request 10s
    timeout http-keep-alive 75s
    timeout check 2s
    default-server check inter 1s fastinter 250ms fall 2 rise 1 observe layer4 error-limit 3 on-error mark-down on-marked-down shutdown-sessions resolvers cluster init-addr none

listen rest
    bind :{{ $engine.rest }}
    {{ $look }}
    http-check expect status 200
    server-template replica {{ $slots }} {{ $host }}:{{ $engine.rest }}

listen grpc
    bind :{{ $engine.grpc }} proto h2
    option clitcpka
    timeout client 1h
    timeout http-keep-alive 1h
    {{- if eq $engine.api "tensorflow" }}
    # A change of what is served would reach one replica only: it is refused here.
    http-request deny deny_status 403 unless { path_beg /tensorflow.serving.PredictionService/ /grpc.health.v1.Health/ } || { path /tensorflow.serving.ModelService/GetModelStatus }
    {{- end }}
    {{ $look }}
    http-check expect status 200
    server-template replica {{ $slots }} {{ $host }}:{{ $engine.grpc }} proto h2 check-proto h1 port {{ $engine.rest }}

frontend statistics
    bind :8404
    monitor-uri /ready
    stats enable
    stats uri /
    stats refresh 5s
    stats hide-version
    http-request use-service prometheus-exporter if { path /metrics }
{{- end -}}
