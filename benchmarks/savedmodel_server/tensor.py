"""The one gRPC request and answer that the benchmark needs, written and read as bytes: a client must cost little.

PredictRequest{model_spec{name: "cnn"} inputs{"image_bytes": DT_STRING [1]}} and the float_val of the one output.
"""

from __future__ import annotations

import struct

FLOAT_VAL = b"\x2a"


def _field(number: int, payload: bytes) -> bytes:
    size, out = len(payload), bytearray()
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *out, size]) + payload


def predict_message(image: bytes) -> bytes:
    """A serialised PredictRequest for one encoded image."""
    shape = _field(2, _field(2, b"\x08\x01"))
    tensor = b"\x08\x07" + shape + _field(8, image)
    return _field(1, _field(1, b"cnn")) + _field(2, _field(1, b"image_bytes") + _field(2, tensor))


def probabilities(message: bytes, classes: int) -> list[float]:
    """The packed floats of the one float_val in a serialised PredictResponse of one row (fewer than 32 classes)."""
    at = message.index(FLOAT_VAL + bytes([4 * classes])) + 2
    return list(struct.unpack_from(f"<{classes}f", message, at))
