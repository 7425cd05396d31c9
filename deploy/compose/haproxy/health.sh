#!/bin/bash
# Healthcheck of HAProxy: it answers, and no service behind it has more replicas than it has places for (BALANCER_SLOTS).
# A replica without a place gets no request, and HAProxy itself does not report it.
ready() {
  { exec 3<>/dev/tcp/127.0.0.1/8404; } 2>/dev/null && printf 'GET /ready HTTP/1.0\r\n\r\n' >&3 && grep -q '200 OK' <&3
}

replicas() { # of a service, by Docker's DNS
  getent ahostsv4 "$1" | cut -d ' ' -f 1 | sort -u | wc -l
}

if ! ready; then
  echo "HAProxy does not answer."
  exit 1
fi
for service in "$TENSORFLOW_SERVICE" torchserve; do
  count=$(replicas "$service")
  if [ "$count" -gt "$BALANCER_SLOTS" ]; then
    sentence="servestorm: $service has $count replicas and the balancer places for $BALANCER_SLOTS, so that the others get no request: set BALANCER_SLOTS to $count or more, or scale down."
    echo "$sentence"
    # Into the container's log too, where `docker compose logs haproxy` shows it.
    { echo "$sentence" >/proc/1/fd/1; } 2>/dev/null
    exit 1
  fi
done
