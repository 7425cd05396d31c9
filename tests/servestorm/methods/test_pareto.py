"""The Pareto front of throughput (more is better) against p99 (less is better)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from servestorm.methods.pareto import front


def test_a_point_that_is_beaten_on_both_is_not_on_the_front():
    assert front([(100, 10), (200, 20), (150, 30), (50, 5)]) == [3, 0, 1]


def test_equal_points_are_both_kept_and_a_tie_in_one_figure_is_decided_by_the_other():
    assert front([(100, 10), (100, 10)]) == [0, 1]
    assert front([(100, 10), (100, 12), (90, 10)]) == [0]


def test_a_point_that_lacks_a_figure_is_left_out_and_nothing_has_no_front():
    assert front([(None, 10), (100, None), (50, 20)]) == [2]
    assert front([]) == []


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_exactly_what_nothing_dominates(points):
    def dominated(p):
        return any(q != p and q[0] >= p[0] and q[1] <= p[1] for q in points)

    found = front(points)
    assert sorted(found) == [i for i, point in enumerate(points) if not dominated(point)]
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)
