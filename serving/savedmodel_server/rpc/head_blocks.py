"""Reads the header blocks of one HTTP/2 connection (HPACK, RFC 7541), each form of them once."""

from __future__ import annotations

from hpack import Decoder
from hpack.exceptions import HPACKError

from serving import http2_frames as h2
from serving.http2_frames import Http2Error
from serving.savedmodel_server.rpc.bounds import LARGEST_HEAD_BYTES
from serving.savedmodel_server.rpc.call_head import CallHead, Fields, read_head

_MOST_KNOWN = 64


class HeadBlocks:
    """One connection's table; every block must be read, in the order in which they came."""

    def __init__(self) -> None:
        self.known: dict[bytes, CallHead] = {}
        """Blocks that were read since the table changed last, and did not change it: they mean the same again."""
        self._decoder = Decoder(max_header_list_size=LARGEST_HEAD_BYTES)
        self._table_changed = False

    def fields(self, block: bytes) -> Fields:
        """Decode a header block; raises Http2Error."""
        entries = self._decoder.header_table.dynamic_entries
        size, first = len(entries), entries[0] if entries else None
        try:
            fields: Fields = self._decoder.decode(block, raw=True)
        except (HPACKError, ValueError, UnicodeDecodeError, IndexError) as error:
            raise Http2Error(h2.COMPRESSION_ERROR, f"head not readable: {error}") from error
        entries = self._decoder.header_table.dynamic_entries
        self._table_changed = len(entries) != size or bool(entries and entries[0] is not first)
        if self._table_changed:
            self.known.clear()
        return fields

    def head(self, block: bytes) -> CallHead:
        """Read a header block, and remember it if it changed no table: a client's later blocks are the same bytes."""
        head = read_head(self.fields(block))
        if not self._table_changed and len(self.known) < _MOST_KNOWN:
            self.known[block] = head
        return head
