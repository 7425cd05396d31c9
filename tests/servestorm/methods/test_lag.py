"""What the load generator's late sends cost the figures of the runs of a round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from servestorm.methods.lag import judge_lag
from servestorm.methods.run_figures import invalid_figures, run_figures
from servestorm.methods.samples import Samples
from servestorm.methods.slices import whole

S = 10**9
SLICES, REQUESTS = 10, 200


def load(late: dict[int, float], base_ms: float = 5.0, share: float = 1.0, seed: int = 1) -> Samples:
    """A run of ten slices; `late` is the lag in ms of a share of the requests of these slices."""
    random = np.random.default_rng(seed)
    slice_of = np.repeat(np.arange(SLICES), REQUESTS)
    size = slice_of.size
    lag_ms = np.array([late.get(number, 0.0) for number in range(SLICES)])[slice_of] * (
        random.uniform(size=size) < share
    )
    latency_ms = base_ms * (0.7 + random.gamma(1.5, 0.2, size)) + lag_ms
    scheduled_ns = slice_of * S + np.sort(random.integers(0, S, (SLICES, REQUESTS)), axis=1).ravel()
    return Samples(
        scheduled_ns=scheduled_ns,
        latency_ns=(latency_ms * 1e6).astype(np.int64),
        lag_ns=(lag_ms * 1e6).astype(np.int32),
        ok=np.ones(size, np.bool_),
        images=np.ones(size, np.int16),
        images_with_warmup=size,
        use=whole(S, SLICES * S - 1, SLICES),
    )


def numbers(samples: Samples) -> dict:
    return run_figures(samples, duration_s=float(SLICES), cpu_s=2.0)


def judged(*loads: Samples) -> list[Samples]:
    return [
        replace(one, use=replace(one.use, late=lag.late, invalid=lag.invalid))
        for one, lag in zip(loads, judge_lag(loads), strict=True)
    ]


def late_slices(samples: Samples, figure: str) -> list[int]:
    return np.flatnonzero(samples.use.late.get(figure, np.zeros(SLICES))).tolist()


def test_without_lag_nothing_is_left_out():
    (only,) = judged(load({}))
    assert not only.use.late and not only.use.invalid


def test_a_hiccup_costs_the_slice_in_which_it_fell_and_only_the_figures_that_it_moved():
    (only,) = judged(load({3: 200.0}, share=0.2))
    assert late_slices(only, "p99") == [3] and late_slices(only, "p50") == []
    assert numbers(only)["p99"] < 15 and not only.use.invalid


def test_what_one_run_leaves_out_its_neighbours_leave_out_too_and_are_judged_without():
    a, b, c = judged(load({3: 60.0}, seed=1), load({8: 60.0}, base_ms=3.0, seed=2), load({}, seed=3))
    assert late_slices(a, "p99") == late_slices(b, "p99") == late_slices(c, "p99") == [3, 8]
    alone, _ = judged(load({}, seed=3), load({}, seed=2))
    kept = ~np.isin(c.slice_of(), [3, 8])
    assert numbers(c)["p99"] == np.sort(c.latency_ns[kept])[int(np.ceil(0.99 * kept.sum())) - 1] / 1e6
    assert numbers(alone)["images_per_s"] == numbers(c)["images_per_s"]


def test_the_choice_does_not_depend_on_the_order_of_the_runs():
    loads = [load({1: 9.0, 4: 20.0}, seed=1), load({6: 30.0}, base_ms=11.0, seed=2)]
    forth, back = judged(*loads), judged(*reversed(loads))
    for name in ("p50", "p99", "mean"):
        assert late_slices(forth[0], name) == late_slices(back[1], name)


def test_an_invalid_figure_of_one_run_costs_its_neighbours_nothing():
    late, other = judged(load(dict.fromkeys(range(SLICES), 4.0)), load({2: 60.0}, seed=2))
    assert "p50" in late.use.invalid and numbers(late)["p50"] is None and "p50" in invalid_figures(late)
    assert late_slices(other, "p50") in ([], [2]) and not other.use.invalid
    assert numbers(late)["images_per_s"] is not None and numbers(late)["cpu_ms_per_image"] == 1.0


def test_runs_that_leave_out_more_than_half_together_have_no_figure():
    a, b = judged(load(dict.fromkeys(range(3), 90.0)), load(dict.fromkeys(range(3, 7), 90.0), seed=2))
    assert "p99" in a.use.invalid and "p99" in b.use.invalid
    assert a.use.invalid["p99"] == "the load generator sent late in so many slices of this round that too few are left"


def test_disturbed_slices_are_no_part_of_the_judgement():
    one = load({3: 60.0})
    disturbed = np.arange(SLICES) == 3
    (only,) = judged(replace(one, use=replace(one.use, disturbed=disturbed)))
    assert not only.use.late
    assert only.right().sum() == (SLICES - 1) * REQUESTS
