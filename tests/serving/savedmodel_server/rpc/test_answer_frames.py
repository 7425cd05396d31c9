"""The frames that answer a gRPC call."""

from urllib.parse import unquote_to_bytes

import pytest
from hpack import Decoder

from serving import http2_frames as h2
from serving.savedmodel_server.errors import Code
from serving.savedmodel_server.rpc.answer_frames import failure


def fields_of(frame):
    high, low, _, _, _ = h2.HEADER.unpack_from(frame)
    assert len(frame) == h2.HEADER_BYTES + (high << 16 | low)
    return dict(Decoder().decode(frame[h2.HEADER_BYTES :]))


@pytest.mark.parametrize("message", ["plain", "50 %\n", "\u00e9", "\u00e9" * 5000, "a" * 5000, "\U0001f600" * 500])
def test_the_message_of_an_error_fits_a_client_s_limit_and_is_cut_between_characters(message):
    fields = fields_of(failure(1, Code.NOT_FOUND, message, opened=False))
    assert fields["grpc-status"] == "5"
    sent = fields["grpc-message"]
    assert len(sent) <= 4000 and (len(sent) > 3980 or unquote_to_bytes(sent).decode() == message)
    assert message.startswith(unquote_to_bytes(sent).decode())
    assert all(" " <= character <= "~" for character in sent)


def test_a_lone_surrogate_does_not_break_the_answer():
    assert unquote_to_bytes(fields_of(failure(1, Code.INTERNAL, "\ud800", opened=True))["grpc-message"]) == b"?"
