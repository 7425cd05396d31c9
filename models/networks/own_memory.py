"""Arrays whose memory a TensorFlow tensor takes over: large weights are then there once, not three times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ALIGNMENT: Final = 64
"""Bytes: TensorFlow's kernels take no memory that begins elsewhere."""
_VALUE: Final = np.dtype(np.float32).itemsize


def aligned(shape: Sequence[int]) -> NDArray[np.float32]:
    """A new float32 array, not filled, whose memory begins where TensorFlow wants it."""
    count = int(np.prod(shape, dtype=np.int64))
    room = np.empty(count + ALIGNMENT // _VALUE, np.float32)
    begin = (-room.ctypes.data % ALIGNMENT) // _VALUE
    return room[begin : begin + count].reshape(shape)


def tensor_of(array: NDArray[np.float32]) -> Any:
    """A tf.Tensor on the array's own memory where that is aligned, C-contiguous and writable, else on a copy.

    Whoever holds the array must not write to it afterwards.
    """
    import tensorflow as tf

    usable = array.ctypes.data % ALIGNMENT == 0 and array.flags.c_contiguous and array.flags.writeable
    if not usable or not array.size:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
