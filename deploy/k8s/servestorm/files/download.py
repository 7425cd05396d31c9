"""download.py URL FILE: what download.sh does with curl, in an image that has Python and no curl.

The same variables, rules and sentences; exit code 3 is a refusal. SIGALRM ends it when all the time is over.
"""

import base64
import functools
import http.client
import ipaddress
import os
import signal
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

ATTEMPTS = 6
MOST_REDIRECTS = 10
REFUSED = 3
PAUSE_S = 2
BLOCK_BYTES = 1 << 16
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """Not to be tried again; the sentence says why and what to do."""


def link_local(address: str) -> bool:
    """Whether an address is in 169.254.0.0/16 or fe80::/10, or the former inside of IPv6."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF).is_link_local
        return (ip.ipv4_mapped or ip).is_link_local
    return ip.is_link_local


def addresses_of(host: str) -> list[str]:
    """A host's addresses; none for a name that does not resolve here: it may resolve at a proxy."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def check_link_local(hop: int, addresses: list[str]) -> None:
    """Only the first address may be link-local, and only if that is asked for. Raises Refused."""
    if not any(map(link_local, addresses)):
        return
    if hop:
        raise Refused(
            "it redirects to a link-local address, which no redirect may lead to: correct models[].source.url.url."
        )
    if os.environ["DOWNLOAD_LINK_LOCAL"] != "true":
        raise Refused("its address is link-local: set download.allowLinkLocal=true if that is meant.")


class _Http(http.client.HTTPConnection):
    """Looks at whom it is connected to before it sends anything: a name may change its address meanwhile."""

    def __init__(self, *arguments: Any, hop: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hop = hop

    def connect(self) -> None:
        super().connect()
        check_link_local(self._hop, [self.sock.getpeername()[0]])
        self.sock.settimeout(None)


class _Https(_Http, http.client.HTTPSConnection):
    """The same with TLS."""


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens http and https with the connections above."""

    def __init__(self, hop: int) -> None:
        super().__init__()
        self._hop = hop

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Http, hop=self._hop), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Https, hop=self._hop, context=ssl.create_default_context()), req)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an HTTPError, so that it is looked at here."""

    def redirect_request(self, *_: object) -> None:
        return None


def follow(url: str, file: str) -> None:
    """Write what is at `url`, after redirects, into `file`. Raises Refused, OSError, HTTPException."""
    address = url
    for hop in range(MOST_REDIRECTS + 1):
        host = urllib.parse.urlsplit(address).hostname or ""
        check_link_local(hop, [host, *addresses_of(host)])
        opener = urllib.request.build_opener(_Handler(hop), _NoRedirect())
        try:
            with opener.open(_request(address), timeout=float(os.environ["DOWNLOAD_CONNECT_SECONDS"])) as source:
                return _write(source, file)
        except urllib.error.HTTPError as error:
            location = error.headers.get("Location")
            if error.code not in (301, 302, 303, 307, 308) or not location:
                raise
        following = urllib.parse.urljoin(address, location)
        _check_scheme(address, following)
        address = following
    raise Refused(f"it redirects over {MOST_REDIRECTS} times: correct models[].source.url.url.")


def _request(address: str) -> urllib.request.Request:
    """The request, with the user and password of the URL as curl sends them."""
    parts = urllib.parse.urlsplit(address)
    user, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())
    if user:
        encoded = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return request


def _check_scheme(address: str, following: str) -> None:
    before, after = (urllib.parse.urlsplit(each).scheme for each in (address, following))
    if after not in (("https",) if before == "https" else ("http", "https")):
        raise Refused(
            f"it redirects to {shown(following)}, and a redirect may only lead to https (from http to http too): "
            "correct models[].source.url.url."
        )


def _write(source: http.client.HTTPResponse, file: str) -> None:
    most = int(os.environ["DOWNLOAD_MAX_BYTES"])
    left = most - int(source.headers.get("Content-Length") or 0)
    with Path(file).open("wb") as target:
        size = 0
        while left >= 0 and (block := source.read1(BLOCK_BYTES)):
            size += len(block)
            left = most - size
            if left >= 0:
                target.write(block)
    if left < 0:
        raise Refused(f"it is larger than {most} bytes: raise storage.models.")
    if source.length:
        raise http.client.IncompleteRead(b"", source.length)


def shown(url: str) -> str:
    """A URL without what may be secret in it: user, password and query."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def main(url: str, file: str) -> int:
    """Download with several attempts; returns the exit code."""
    signal.alarm(int(os.environ["DOWNLOAD_TOTAL_SECONDS"]))
    for attempt in range(ATTEMPTS):
        try:
            follow(url, file)
            return 0
        except Refused as refused:
            print(f"servestorm: the model {shown(url)} is not downloaded: {refused}", file=sys.stderr)
            return REFUSED
        except (OSError, http.client.HTTPException, ValueError) as error:
            print(f"attempt {attempt + 1} of {ATTEMPTS}: {error}", file=sys.stderr)
        if attempt + 1 < ATTEMPTS:
            time.sleep(PAUSE_S)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
