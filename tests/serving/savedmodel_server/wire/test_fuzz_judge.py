"""What the fuzzer takes for a good gzip body."""

import gzip
import zlib

import pytest

from tests.serving.savedmodel_server.wire.wire_fuzz import unpacked

MEMBER = gzip.compress(b"[1]", mtime=0)


def test_any_number_of_members_is_unpacked():
    assert unpacked(MEMBER) == b"[1]" and unpacked(MEMBER + MEMBER) == b"[1][1]"


@pytest.mark.parametrize(
    "damaged", [MEMBER + b"\x00", MEMBER + b"x", MEMBER[:-1], b"[1]"], ids=["zero", "text", "cut", "plain"]
)
def test_nothing_may_be_missing_or_follow(damaged):
    with pytest.raises((EOFError, zlib.error)):
        unpacked(damaged)
