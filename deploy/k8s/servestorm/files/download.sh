#!/bin/sh
# download.sh URL FILE: fetches a model with the tool that this image has for the scheme. Credentials come from the
# environment or from the pod's workload identity; unpack.sh compares the checksum.
#
#   DOWNLOAD_CONNECT_SECONDS   for one connection
#   DOWNLOAD_TOTAL_SECONDS     for all attempts together
#   DOWNLOAD_MAX_BYTES         of the file
#   DOWNLOAD_LINK_LOCAL        true: the URL itself may have a link-local address. A redirect never may: that is where
#                              clouds keep the credentials of their machines.
set -eu
url=$1
file=$2
ATTEMPTS=6
MOST_REDIRECTS=10
REFUSED=3
TOO_LONG=124

# For every tool, also where it does not know the size before. POSIX counts blocks of 512 bytes.
ulimit -f $(((DOWNLOAD_MAX_BYTES + 511) / 512))

shown() { # a URL without what may be secret in it: user, password and query
  scheme=${1%%://*}
  rest=${1#*://}
  rest=${rest%%[?#]*}
  path=${rest#"${rest%%/*}"}
  authority=${rest%%/*}
  echo "$scheme://${authority##*@}$path"
}

host_of() {
  host=${1#*://}
  host=${host%%[/?#]*}
  host=${host##*@}
  case $host in
    \[*) host=${host#\[} && echo "${host%%\]*}" ;;
    *) echo "${host%%:*}" ;;
  esac
}

link_local() { # whether one of these addresses is: 169.254.0.0/16, fe80::/10, or the former inside of IPv6
  for one; do
    case $one in
      169.254.* | [Ff][Ee][89AaBb]?:* | ::[Ff][Ff][Ff][Ff]:169.254.* | ::[Ff][Ff][Ff][Ff]:[Aa]9[Ff][Ee]:* | \
        64:[Ff][Ff]9[Bb]::[Aa]9[Ff][Ee]:*) return 0 ;;
    esac
  done
  return 1
}

addresses_of() { # a host's addresses; a name that does not resolve here may resolve at a proxy
  found=$(getent ahosts "$1" 2>/dev/null || getent hosts "$1" 2>/dev/null) || return 0
  echo "$found" | while read -r address _; do echo "$address"; done
}

refuse() {
  echo "servestorm: the model $(shown "$url") is not downloaded: $1" >&2
  return $REFUSED
}

check_link_local() { # hop, addresses: only the first may be link-local, and only if that is asked for
  hop=$1
  shift
  link_local "$@" || return 0
  if [ "$hop" -gt 0 ]; then
    refuse "it redirects to a link-local address, which no redirect may lead to: correct models[].source.url.url."
  elif [ "$DOWNLOAD_LINK_LOCAL" != true ]; then
    refuse "its address is link-local: set download.allowLinkLocal=true if that is meant."
  fi
}

seconds_left() { echo $((deadline - $(date +%s))); }

one_request() { # of $address; sets $status, $peer and $next
  left=$(seconds_left)
  [ "$left" -gt 0 ] || return $TOO_LONG
  answer=$(curl --fail --silent --show-error --proto =http,https --connect-timeout "$DOWNLOAD_CONNECT_SECONDS" \
    --max-time "$left" --max-filesize "$DOWNLOAD_MAX_BYTES" --output "$file" \
    --write-out '%{http_code} %{remote_ip} %{redirect_url}' "$address") || {
    state=$?
    case $state in
      # By its announced size, or by a signal at the limit of this script.
      63 | 153)
        refuse "it is larger than $DOWNLOAD_MAX_BYTES bytes: raise storage.models." || return $?
        ;;
    esac
    [ "$(seconds_left)" -gt 0 ] || return $TOO_LONG
    return 1
  }
  status=${answer%% *}
  answer=${answer#* }
  peer=${answer%% *}
  next=${answer#* }
}

follow() { # curl is not told to follow redirects, because it cannot be told where they must not lead
  address=$url
  hop=0
  while :; do
    # shellcheck disable=SC2046
    check_link_local "$hop" "$(host_of "$address")" $(addresses_of "$(host_of "$address")") || return $?
    one_request || return $?
    check_link_local "$hop" "$peer" || return $?
    case $status in
      3??) ;;
      *) return 0 ;;
    esac
    [ -n "$next" ] || return 1
    case $address:::$next in
      [Hh][Tt][Tt][Pp][Ss]:*:::[Hh][Tt][Tt][Pp][Ss]://* | [Hh][Tt][Tt][Pp]:*:::[Hh][Tt][Tt][Pp]*://*) ;;
      *)
        refuse "it redirects to $(shown "$next"), and a redirect may only lead to https (from http to http too): correct models[].source.url.url." || return $?
        ;;
    esac
    address=$next
    hop=$((hop + 1))
    [ "$hop" -le $MOST_REDIRECTS ] || refuse "it redirects over $MOST_REDIRECTS times: correct models[].source.url.url." || return $?
  done
}

with_curl() {
  deadline=$(($(date +%s) + DOWNLOAD_TOTAL_SECONDS))
  attempt=1
  while :; do
    state=0
    follow || state=$?
    case $state in 0 | "$REFUSED" | "$TOO_LONG") return "$state" ;; esac
    [ $attempt -lt $ATTEMPTS ] || return 1
    attempt=$((attempt + 1))
    [ "$(seconds_left)" -gt 2 ] || return $TOO_LONG
    sleep 2
  done
}

fetch() {
  case $url in
    s3://*) timeout "$DOWNLOAD_TOTAL_SECONDS" aws s3 cp --only-show-errors --cli-connect-timeout "$DOWNLOAD_CONNECT_SECONDS" "$url" "$file" ;;
    gs://*) timeout "$DOWNLOAD_TOTAL_SECONDS" gcloud storage cp --quiet "$url" "$file" ;;
    *)
      if command -v curl >/dev/null; then
        with_curl
      else
        python3 "${0%/*}/download.py" "$url" "$file"
      fi
      ;;
  esac
}

state=0
fetch || state=$?
case $state in
  0) exit 0 ;;
  "$REFUSED") ;;
  # timeout's, its signal's in other versions of it, and the alarm of download.py.
  "$TOO_LONG" | 143 | 142)
    echo "servestorm: $(shown "$url") was not downloaded within $DOWNLOAD_TOTAL_SECONDS s: raise download.totalSeconds, or use a nearer address." >&2
    ;;
  *)
    echo "servestorm: $(shown "$url") could not be downloaded: check the address, the credentials and the network policy's egress." >&2
    ;;
esac
exit 1
