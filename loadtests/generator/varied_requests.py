"""Which prepared request each arrival takes, where a trace says how many images each request carries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def prepared_request_of(images: NDArray[np.int64], carried: Sequence[int]) -> NDArray[np.int32]:
    """(arrivals,) index of a prepared request with as many images; those with equally many take turns.

    `images` are the numbers of images of the arrivals, `carried` those of the prepared requests.
    """
    requests, numbers = np.empty(len(images), np.int32), np.asarray(carried)
    for number in np.unique(images):
        arrivals, fitting = np.flatnonzero(images == number), np.flatnonzero(numbers == number)
        requests[arrivals] = fitting[np.arange(len(arrivals)) % len(fitting)]
    return requests


def disjoint_groups(images: int, size: int) -> list[list[int]]:
    """Which images go into the prepared requests of one size: each image comes once, or as often as one needs it."""
    return [[(first + i) % images for i in range(size)] for first in range(0, images, size)]
