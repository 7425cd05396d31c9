"""Raw HTTP/1.1 and HTTP/1.0 requests: every method, target and header that a client or a proxy may send.

All are whole: none leaves a server waiting for more. The root page, /docs and /openapi.json are savedmodel-server's
own, and the metrics page differs from one moment to the next: none of them is asked for.
"""

from __future__ import annotations

import random
import zlib

from benchmarks.savedmodel_server.grammar.zoo_signatures import HALF, ZOO

METHODS = ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "FETCH", "get", "post", "Post", "LOCK"]
BODY = b'{"instances": [1.0, 2.0]}'
PREDICT = f"/v1/models/{HALF}:predict"
STATUS = f"/v1/models/{HALF}"
GOOD_GETS = [
    STATUS, f"/v1/models/{ZOO}", f"{STATUS}/versions/1", f"{STATUS}/versions/2", f"{STATUS}/labels/stable",
    f"{STATUS}/metadata", f"{STATUS}/versions/1/metadata", f"{STATUS}/labels/canary/metadata",
    f"/v1/models/{ZOO}/metadata",
    "/v1/models/half%5Fplus%5Ftwo", "/V1/Models/half_plus_two",
]  # fmt: skip
ODD_TARGETS = [
    f"{STATUS}/", f"{STATUS}?x=1", f"{STATUS}?", f"{STATUS}#f", f"{STATUS}/versions/9", f"{STATUS}/versions/{2**63}",
    f"{STATUS}/versions/{2**63 - 1}", f"{STATUS}/versions/x", f"{STATUS}/versions/-1", f"{STATUS}/versions/",
    f"{STATUS}/versions/0", f"{STATUS}/labels/nope", f"{STATUS}/labels/", f"{STATUS}/Metadata", f"{STATUS}/metadata/",
    f"{STATUS}/metadata?a", f"{STATUS}/versions/9/metadata", f"{STATUS}/versions/{2**64}/metadata",
    f"{STATUS}/labels/a/metadata",
    "/v1/models", "/v1/models/", "/v1/models/nope", "/v1/models/nope/metadata", "/v1", "/v1/", "/v1/foo",
    "/v2/models/zoo",
    "/nothing", "/v1/models/half%zz", "/v1/models/half%5", "/v1/models/half%", "/v1/models/a%00b", "/v1/models/a%2Fb",
    "/v1/models/%68alf_plus_two", "/v1/models/half%20plus", "/v1/models/h\u00e9", "/v1/models/h%C3%A9",
    "/v1/models/..%2Fzoo",
    "/v1/models/../models/zoo", "//v1/models/zoo", "/v1//models/zoo", "/v1/models/a/b", "/v1/models/:predict", "*",
    "v1/models",
    f"http://x{STATUS}", f"https://x{STATUS}", f"http://x:80{STATUS}?a", "http://x", f"ftp://x{STATUS}", f"//x{STATUS}",
    PREDICT, f"{PREDICT}?a=b", f"{PREDICT}#f", f"{PREDICT}/", f"{PREDICT}?", f"http://x{PREDICT}", f"{STATUS}:Predict",
    f"{STATUS}:classify", f"{STATUS}:metadata", f"{STATUS}:", f"{STATUS}%3Apredict",
    f"{STATUS}/versions/{2**63}:predict",
    f"{STATUS}/versions/{2**64}:regress", "/monitoring/prometheus/metrics/", "/monitoring/prometheus", "/monitoring",
]  # fmt: skip
GOOD_HEADERS = [
    "Accept: */*", "Accept-Encoding: identity", "X-Empty:", "X-Text:  \ta b\t ", "Connection: keep-alive",
    "Connection: close", "Content-Type: application/json", "Content-Type: text/plain", "User-Agent: x", "Cookie: a=b",
]  # fmt: skip
ODD_HEADERS = [
    "Connection: Close", "Connection: keep-alive, close", "Connection: Upgrade\r\nUpgrade: websocket", "Keep-Alive: 5",
    "Origin: http://example.com", "Origin: https://a.b:1", "Origin: null", "Origin: file://x",
    "Access-Control-Request-Method: POST", "Content-Type: application/x-www-form-urlencoded",
    "Content-Type: multipart/x",
    "Content-Encoding: identity", "Content-Encoding: br", "Content-Encoding: deflate", "Content-Encoding: ",
    "Content-Encoding: GZIP", "X-\u00e9: a", "X: \u00e9", "Host: y", "If-Modified-Since: now", "Range: bytes=0-1",
    "Transfer-Encoding: identity", "TE: trailers", "Authorization: Basic x", "X-Http-Method-Override: GET",
    " X: folded",
    "X : space", "NoColon", ": nothing", "X-Long: " + "a" * 4000, "Max-Forwards: 0",
]  # fmt: skip
STRICTER = ["two lengths", "bare LF", "HTTP/1.2"]
"""What savedmodel-server refuses on purpose (answer_values.STRICTER)."""


def http_request(rng: random.Random, valid: bool) -> tuple[str, bytes]:
    """(what it is, all bytes of a request)."""
    if valid:
        return good_request(rng)
    makers = [odd_method, odd_target, odd_header, odd_version, coded_body, stricter]
    return rng.choices(makers, [5, 8, 5, 2, 4, 1])[0](rng)


def good_request(rng: random.Random) -> tuple[str, bytes]:
    """A GET, or a POST in one of the forms that HTTP allows."""
    headers = rng.sample(GOOD_HEADERS, rng.randint(0, 2))
    version = rng.choice(["HTTP/1.1"] * 4 + ["HTTP/1.0"])
    if rng.random() < 0.5:
        return "GET", request("GET", rng.choice(GOOD_GETS), headers, version=version)
    if version == "HTTP/1.1" and rng.random() < 0.4:
        body = chunked(rng)
        return "POST chunked", request("POST", PREDICT, [*headers, "Transfer-Encoding: chunked"], body, length=False)
    if rng.random() < 0.3:
        headers.append("Content-Encoding: gzip")
        return "POST gzip", request("POST", PREDICT, headers, gzipped(BODY), version)
    return "POST", request("POST", PREDICT, headers, BODY, version)


def odd_method(rng: random.Random) -> tuple[str, bytes]:
    """A method that the path does not have."""
    method = rng.choice([*METHODS, "GET", "POST"])
    target = rng.choice([PREDICT, STATUS, f"{STATUS}/metadata", "/v1/foo", "/nothing", "/v1/models/nope"])
    body = b"" if method in ("GET", "TRACE", "CONNECT", "HEAD") or rng.random() < 0.3 else BODY
    headers = ["Origin: http://example.com"] if rng.random() < 0.3 else []
    return f"method {method}", request(method, target, headers, body)


def odd_target(rng: random.Random) -> tuple[str, bytes]:
    """A target that names nothing, or in a strange way."""
    target = rng.choice(ODD_TARGETS)
    method = rng.choice(["GET", "GET", "POST"])
    return f"target {target}", request(method, target, [], BODY if method == "POST" else b"")


def odd_header(rng: random.Random) -> tuple[str, bytes]:
    """One or two headers with a meaning, or with a fault."""
    headers = rng.sample(ODD_HEADERS, rng.choice([1, 1, 2]))
    method = rng.choice(["GET", "POST"])
    target = PREDICT if method == "POST" else STATUS
    host = rng.choice(["Host: x"] * 6 + ["", "Host:", "Host: x\r\nHost: x", "Host: a b", "host: x:80", "HOST: [::1]"])
    return "headers", request(method, target, headers, BODY if method == "POST" else b"", host=host)


def odd_version(rng: random.Random) -> tuple[str, bytes]:
    """HTTP/1.0 with all that concerns its connection, and versions that hardly anyone speaks."""
    version = rng.choice(
        ["HTTP/1.0"] * 6 + ["HTTP/2.0", "HTTP/0.9", "HTTP/1.10", "http/1.1", "HTTP/1", "HTTPS/1.1", "x"]
    )
    headers = rng.choice([[], ["Connection: keep-alive"], ["Connection: close"], ["Connection: Keep-Alive"]])
    host = rng.choice(["Host: x", ""])
    if rng.random() < 0.5:
        return f"version {version}", request("GET", STATUS, headers, version=version, host=host)
    return f"version {version}", request("POST", PREDICT, headers, BODY, version, host=host)


def coded_body(rng: random.Random) -> tuple[str, bytes]:
    """A body that is packed, says so or not, and may be damaged; or a GET with a body."""
    packed = gzipped(BODY)
    body = rng.choice([
        packed, packed[:-5], packed[:8], packed[:-1] + b"x", packed + b"more", packed + packed, b"", BODY, b"\x1f\x8b",
        zlib_stored(BODY), packed[:12] + b"\xff" + packed[13:], gzipped(b""), gzipped(packed),
    ])  # fmt: skip
    coding = rng.choice(["gzip", "gzip", "gzip", "deflate", "GZIP", "x-gzip", "identity", "gzip, gzip", "br"])
    method = rng.choice(["POST", "POST", "POST", "GET"])
    target = PREDICT if method == "POST" else STATUS
    return f"coding {coding}", request(method, target, [f"Content-Encoding: {coding}"], body)


def stricter(rng: random.Random) -> tuple[str, bytes]:
    """One of STRICTER."""
    what = rng.choice(STRICTER)
    version = "HTTP/1.2" if what == "HTTP/1.2" else "HTTP/1.1"
    headers = [f"Content-Length: {len(BODY)}"] if what == "two lengths" else []
    data = request("POST", PREDICT, headers, BODY, version)
    return what, data.replace(b"\r\n", b"\n") if what == "bare LF" else data


def gzipped(body: bytes) -> bytes:
    """A gzip file that holds `body` as it is: every version of zlib would compress it in its own way."""
    ends = zlib.crc32(body).to_bytes(4, "little") + len(body).to_bytes(4, "little")
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + stored(body) + ends


def zlib_stored(body: bytes) -> bytes:
    """What the coding "deflate" means by HTTP: a zlib stream."""
    return b"\x78\x01" + stored(body) + zlib.adler32(body).to_bytes(4, "big")


def stored(body: bytes) -> bytes:
    """A deflate block that holds `body` uncompressed."""
    size = len(body)
    return b"\x01" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + body


def chunked(rng: random.Random) -> bytes:
    """BODY in chunks, some with an extension, some with a trailer."""
    at = rng.randrange(1, len(BODY))
    extension = rng.choice([b"", b"", b";a", b";a=b"])
    parts = [b"%x" % len(part) + extension + b"\r\n" + part + b"\r\n" for part in (BODY[:at], BODY[at:])]
    return b"".join(parts) + b"0\r\n" + rng.choice([b"", b"", b"X-Sum: 1\r\n"]) + b"\r\n"


def request(
    method: str,
    target: str,
    headers: list[str],
    body: bytes = b"",
    version: str = "HTTP/1.1",
    *,
    host: str = "Host: x",
    length: bool = True,
) -> bytes:
    """The bytes of a request; with a `body`, and for methods that mostly have one, a Content-Length where `length`."""
    lines = [f"{method} {target} {version}", *([host] if host else []), *headers]
    if length and (body or method.upper() in ("POST", "PUT", "PATCH")):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body
