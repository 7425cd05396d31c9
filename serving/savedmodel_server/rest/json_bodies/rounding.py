"""Float32 arrays rounded to the decimal numbers that TensorFlow Serving 2.20 writes for them, all at once."""

from __future__ import annotations

import numpy as np

from serving.savedmodel_server.dtypes import Array

_LARGEST, _SMALLEST = 1e6, 1e-13
"""Between them, the powers of ten that are needed are exact doubles."""
_FIRST_OF_SMALLEST = -12
_POWERS = np.array([10.0**k for k in range(22)])
"""Of ten, to get nine digits before the point: by 8 - e, for a number whose first digit counts 10**e."""
_TIE = 2e-7
"""How near the half of a digit a product may lie and be rounded to the wrong side."""


def nine_digits(array: Array) -> Array | None:
    """Doubles: each number with six digits where they identify the float32, else with nine, as C's `%g` rounds.

    None where the array is no float32, holds numbers that are not finite, or needs more care than this takes.
    """
    if array.dtype != np.float32:
        return None
    values = np.abs(array.astype(np.float64))
    if not values.max() < _LARGEST:  # NaN is not, either
        return None
    first = np.floor(np.log10(np.maximum(values, _SMALLEST))).astype(np.intp)
    if first.min() < _FIRST_OF_SMALLEST and np.any((values > 0) & (values < _SMALLEST)):
        return None
    scale = _POWERS[8 - first]
    scaled = values * scale
    whole = np.rint(scaled)
    distance = np.abs(scaled - whole)
    if np.abs(distance - 0.5).min() < _TIE and np.any((np.abs(distance - 0.5) < _TIE) & (distance != 0.5)):
        return None
    nine = whole / scale
    thousandth = scale / 1000.0
    six = np.rint(values * thousandth) / thousandth
    return np.copysign(np.where(six.astype(np.float32) == np.abs(array), six, nine), array)
