"""How evenly requests were spread over replicas."""

from __future__ import annotations

import numpy as np
import pytest

from servestorm.analysis.balance import balance
from servestorm.rundir.samples import count_by_endpoint


def test_an_even_spread_is_one_in_both_figures():
    found = balance(count_by_endpoint(np.array([0, 1, 2, 0, 1, 2], np.int16), 3))
    assert found.requests == (2, 2, 2)
    assert (found.jain, found.largest_over_mean) == (pytest.approx(1), pytest.approx(1))


def test_a_replica_that_takes_all_gives_one_over_the_replicas():
    found = balance(count_by_endpoint([1] * 50, 4))
    assert found.shares == (0, 1, 0, 0)
    assert (found.jain, found.largest_over_mean) == (pytest.approx(0.25), pytest.approx(4))


def test_jains_index_is_the_papers():
    found = balance(count_by_endpoint([0] * 3 + [1], 2))  # (3 + 1)^2 / (2 (9 + 1)) = 0.8
    assert (found.jain, found.largest_over_mean) == (pytest.approx(0.8), pytest.approx(1.5))


def test_no_request_has_no_evenness_and_a_sample_without_an_endpoint_is_left_out():
    assert balance(count_by_endpoint([], 2)).jain is None
    found = balance(count_by_endpoint([-1, -1, 0, 1], 2))
    assert found.requests == (1, 1)
