#!/bin/sh
# wait.sh URL: returns when something answers there, so that a load does not begin before what it loads is ready.
# Any status under 500 is an answer: 503 is the balancer's own, while no replica is up.
set -eu
url=$1

answers() {
  python3 -c '
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    sys.exit(error.code >= 500)
except OSError:
    sys.exit(1)
' "$url"
}

tries=0
until answers; do
  [ $((tries % 10)) -eq 0 ] && echo "servestorm: waiting for $url"
  tries=$((tries + 1))
  sleep 1
done
