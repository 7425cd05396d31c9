"""No message repeats a secret that a server's answer repeats."""

from __future__ import annotations

import pytest

from serving.headers import Headers
from serving.hidden_values import HiddenValues

TOKEN = "s3cr3t-t0k3n-of-36-characters"


def hidden(*texts):
    headers = Headers.of_options(texts)
    return HiddenValues.of(headers, headers.read())


@pytest.fixture(autouse=True)
def variable(monkeypatch):
    monkeypatch.setenv("TOKEN", TOKEN)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"the reply is an error: 'Bearer {TOKEN}' has expired", "the reply is an error: 'Bearer ...' has expired"),
        (f"{TOKEN}, {TOKEN}.", "..., ...."),
        (f"cut after a part of it: {TOKEN[:9]}", "cut after a part of it: ..."),
        (f"cut before the sixth character: {TOKEN[:5]}", f"cut before the sixth character: {TOKEN[:5]}"),
        ("HTTP 503", "HTTP 503"),
        ("Bearer is no secret", "Bearer is no secret"),
    ],
)
@pytest.mark.parametrize(
    "header", ["Authorization=Bearer env:TOKEN", "X-Of-The-Team=env:TOKEN", f"Authorization=Bearer {TOKEN}"]
)
def test_a_secret_is_hidden_whole_and_where_a_quotation_cuts_it(header, text, shown):
    assert hidden("X-Team=vision", header).out_of(text) == shown


def test_a_value_that_is_no_secret_is_shown():
    assert hidden("X-Team=vision", "Accept-Language=de").out_of("no team vision") == "no team vision"


def test_a_few_letters_are_not_looked_for(monkeypatch):
    monkeypatch.setenv("TOKEN", "abc")
    assert hidden("X-Key=env:TOKEN").out_of("abc of the alphabet") == "abc of the alphabet"


def test_its_text_shows_none():
    assert TOKEN not in repr(hidden("Authorization=env:TOKEN"))
