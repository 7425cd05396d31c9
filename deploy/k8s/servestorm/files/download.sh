#!/bin/sh
# download.sh URL FILE: fetches a model with the tool that this image has for the scheme. Credentials come from the
# environment or from the pod's workload identity; unpack.sh compares the checksum.
set -eu
url=$1
file=$2

fetch() {
  case $url in
    s3://*) aws s3 cp --only-show-errors "$url" "$file" ;;
    gs://*) gcloud storage cp --quiet "$url" "$file" ;;
    *)
      if command -v curl >/dev/null; then
        curl --fail --silent --show-error --location --retry 5 --retry-delay 2 --retry-all-errors --output "$file" "$url"
      else
        python3 -c '
import shutil, sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=60) as source, open(sys.argv[2], "wb") as target:
    shutil.copyfileobj(source, target)
' "$url" "$file"
      fi
      ;;
  esac
}

if ! fetch; then
  echo "servestorm: $url could not be downloaded: check the address, the credentials and the network policy's egress." >&2
  exit 1
fi
