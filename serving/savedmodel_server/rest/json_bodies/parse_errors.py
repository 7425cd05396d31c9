"""Where a JSON text is wrong, in RapidJSON's words, which TensorFlow Serving's clients read."""

from __future__ import annotations

import re

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WHITE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_HEX = re.compile(rb"[0-9a-fA-F]{4}")
_WHOLE = re.compile(rb"0|[1-9][0-9]*")
_LITERALS = {b"n": b"null", b"t": b"true", b"f": b"false", b"N": b"NaN", b"I": b"Inf"}
_INVALID = "Invalid value."


class _WrongError(Exception):
    """What is wrong at an offset."""


def parse_error(body: bytes) -> str:
    """What is wrong with the first JSON value in `body`, and at which byte; empty where nothing is."""
    try:
        _read(body)
    except _WrongError as error:
        text, offset = error.args
        return f"{text} at offset: {offset}"
    return ""


def _read(body: bytes) -> None:
    """Go through one value, however deep it is nested."""
    at = _skip(body, len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0)
    if body[at : at + 1] in (b"", b"\x00"):
        raise _WrongError("The document is empty.", at)
    opened: list[bytes] = []
    while True:
        kind = body[at : at + 1]
        if kind in (b"{", b"["):
            opened.append(kind)
            at = _skip(body, at + 1)
            if body[at : at + 1] != (b"}" if kind == b"{" else b"]"):
                at = _key(body, at) if kind == b"{" else at
                continue
            opened.pop()
            at += 1
        else:
            at = _scalar(body, at)
        at, is_over = _after_value(body, at, opened)
        if is_over:
            return


def _after_value(body: bytes, at: int, opened: list[bytes]) -> tuple[int, bool]:
    """Close what ends here; returns where the next value begins, or that there is none."""
    while opened:
        at = _skip(body, at)
        found, in_object = body[at : at + 1], opened[-1] == b"{"
        if found == b",":
            at = _skip(body, at + 1)
            return (_key(body, at) if in_object else at), False
        if found != (b"}" if in_object else b"]"):
            end = "'}' after an object member." if in_object else "']' after an array element."
            raise _WrongError(f"Missing a comma or {end}", at)
        opened.pop()
        at += 1
    return at, True


def _skip(body: bytes, at: int) -> int:
    match = _WHITE.match(body, at)
    assert match is not None
    return match.end()


def _key(body: bytes, at: int) -> int:
    """Over a name and its colon."""
    if body[at : at + 1] != b'"':
        raise _WrongError("Missing a name for object member.", at)
    at = _skip(body, _string(body, at))
    if body[at : at + 1] != b":":
        raise _WrongError("Missing a colon after a name of object member.", at)
    return _skip(body, at + 1)


def _scalar(body: bytes, at: int) -> int:
    kind = body[at : at + 1]
    if kind == b'"':
        return _string(body, at)
    if kind in (b"n", b"t", b"f"):
        return _literal(body, at, _LITERALS[kind])
    return _number(body, at)


def _literal(body: bytes, at: int, name: bytes) -> int:
    for expected in name:
        if body[at : at + 1] != bytes((expected,)):
            raise _WrongError(_INVALID, at)
        at += 1
    return at


def _string(body: bytes, at: int) -> int:
    at += 1
    while True:
        match = _PLAIN.match(body, at)
        assert match is not None
        at = match.end()
        found = body[at : at + 1]
        if found == b'"':
            return at + 1
        if found in (b"", b"\x00"):
            raise _WrongError("Missing a closing quotation mark in string.", at)
        if found != b"\\":
            raise _WrongError("Invalid escape character in string.", at)
        at = _escape(body, at)


def _escape(body: bytes, at: int) -> int:
    kind = body[at + 1 : at + 2]
    if kind == b"u":
        return _unicode_escape(body, at)
    if not kind or kind not in b'"\\/bfnrt':
        raise _WrongError("Invalid escape character in string.", at)
    return at + 2


def _unicode_escape(body: bytes, at: int) -> int:
    end = at + 6
    if 0xD800 <= _code_point(body, at, at) <= 0xDBFF:
        if body[end : end + 2] != b"\\u" or not 0xDC00 <= _code_point(body, end, at) <= 0xDFFF:
            raise _WrongError("The surrogate pair in string is invalid.", at)
        end += 6
    return end


def _code_point(body: bytes, at: int, escape: int) -> int:
    match = _HEX.match(body, at + 2)
    if match is None:
        raise _WrongError("Incorrect hex digit after \\u escape in string.", escape)
    return int(match[0], 16)


def _number(body: bytes, at: int) -> int:
    begin = at
    at += body[at : at + 1] == b"-"
    named = _LITERALS.get(body[at : at + 1])
    if named in (b"NaN", b"Inf"):
        at = _literal(body, at, named)
        return _literal(body, at, b"inity") if named == b"Inf" and body[at : at + 1] == b"i" else at
    whole = _WHOLE.match(body, at)
    if whole is None:
        raise _WrongError(_INVALID, at)
    at = whole.end()
    if body[at : at + 1] == b".":
        at = _digits(body, at + 1, "Miss fraction part in number.")
    if body[at : at + 1] in (b"e", b"E"):
        at += 1 + (body[at + 1 : at + 2] in (b"+", b"-"))
        at = _digits(body, at, "Miss exponent in number.")
    if body[begin:at].lstrip(b"-").isdigit() or float(body[begin:at]) not in (float("inf"), float("-inf")):
        return at
    raise _WrongError("Number too big to be stored in double.", begin)


def _digits(body: bytes, at: int, missing: str) -> int:
    match = _DIGITS.match(body, at)
    assert match is not None
    if match.end() == at:
        raise _WrongError(missing, at)
    return match.end()
