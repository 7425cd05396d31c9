"""Made-up data for the figures that are drawn from the numbers of a study's results."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from servestorm.analysis.cost import Cost
from servestorm.analysis.figures import Law, Setting
from servestorm.analysis.judgements import Judgement
from servestorm.analysis.latency_split import Part, Parts
from servestorm.analysis.run import SearchObjective, SearchResult
from servestorm.methods.bursts import Burst
from servestorm.methods.capacity_estimate import Crossing
from servestorm.methods.capacity_search import Probe
from servestorm.methods.verdict import Verdict
from servestorm.report.part import SectionPart
from servestorm.report.sections import bursts, capacity, cost, latency_split, runs, scaling_law, sweep, verdicts

ENGINES = ["savedmodel", "torchserve"]


def all_parts(engines: list[str] = ENGINES) -> list[SectionPart]:
    """Every kind of figure once."""
    parts = [
        verdicts.part("forest", engines, verdict_rows(), 5.0, subtitle="made up"),
        capacity.part("capacity", engines, searches(), 40.0, capacities(), subtitle="made up"),
        scaling_law.part("usl", engines, laws(), subtitle="made up"),
        sweep.part("front", engines, settings(), subtitle="made up"),
        cost.part("cost", engines, costs(), "Prices of 2026-01-01.", subtitle="made up"),
        runs.part("boxes", engines, run_values(), subtitle="made up"),
        latency_split.part("split", engines, time_parts(), subtitle="made up"),
        bursts.part("bursts", engines, burst_rows(), subtitle="made up"),
    ]
    return [part for part in parts if part]


def searches() -> dict[str, list[SearchResult]]:
    def run(rate: float, seed: int) -> SearchResult:
        random = np.random.default_rng(seed)
        rates = [rate / 2.1, rate / 1.05, rate * 2.1, rate * 1.4, rate * 1.1, rate * 0.98, rate]
        probes = [
            probe(
                float(r),
                "pass" if r <= rate else "fail",
                float(8 / max(0.02, 1 - r / (1.25 * rate)) * random.uniform(0.9, 1.1)) if r < 2 * rate else None,
            )
            for r in rates
        ]
        probes.append(probe(rate * 0.9, "invalid", 12.0))
        met = Crossing(rate_per_s=rate * 1.03, low=rate * 0.98, high=rate * 1.09, probes=5) if seed % 3 else None
        return search(probes, rate_per_s=rate, low=rate, high=rate * 1.1, crossing=met)

    return {
        "savedmodel": [run(510, 1), run(540, 2), run(525, 3)],
        "torchserve": [run(180, 4), run(176, 5), run(190, 6)],
    }


def capacities() -> dict[str, capacity.Capacity]:
    return {
        "savedmodel": capacity.Capacity(525.0, "525 images/s"),
        "torchserve": capacity.Capacity(182.0, "182 images/s"),
    }


def probe(rate_per_s: float, verdict: str, p99_ms: float | None) -> Probe:
    return Probe(rate_per_s=rate_per_s, verdict=verdict, reason="", p99_ms=p99_ms, error_percent=0.0)


def search(
    probes: list[Probe],
    *,
    rate_per_s: float | None = None,
    low: float | None = None,
    high: float | None = None,
    confirmed: bool = True,
    crossing: Crossing | None = None,
) -> SearchResult:
    """A search for the largest rate with a p99 of at most 50 ms."""
    return SearchResult(SearchObjective(50.0, 0.1), rate_per_s, low, high, confirmed, probes, "", crossing)


def laws() -> dict[str, Law]:
    random = np.random.default_rng(3)
    found = {}
    for engine, (rate, sigma, kappa) in {"savedmodel": (500, 0.08, 0.012), "torchserve": (170, 0.2, 0.004)}.items():

        def law(n: float, rate: float = rate, sigma: float = sigma, kappa: float = kappa) -> float:
            return rate * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))

        means = [(n, law(n)) for n in (1, 2, 4, 6, 8)]
        found[engine] = Law(
            points=[(n, law(n) * random.uniform(0.96, 1.04)) for n in (1, 2, 4, 6, 8) for _ in range(3)],
            lambda_=float(rate),
            sigma=sigma,
            kappa=kappa,
            r2=0.991,
            peak_replicas=None,
            curve=[(n, law(n)) for n in np.linspace(1, 8, 60).tolist()],
            means=means,
            linear=[(n, n * means[0][1]) for n, _ in means],
        )
    return found


def settings() -> dict[str, list[Setting]]:
    return {
        engine: [
            Setting(
                label=f"batch {batch}, {delay} ms, {flight} in flight",
                images_per_s=scale * batch**0.4 * (1 + 0.1 * flight / 16) / (1 + 0.04 * delay),
                p99_ms=900 / scale * (1 + batch / 3 + delay) * (1 + flight / 12),
                front=delay == 1 and flight == 4,
            )
            for batch in (1, 4, 8, 16, 32)
            for delay in (1, 5)
            for flight in (4, 16)
        ]
        + [Setting("batch 64, 1 ms, 4 in flight", images_per_s=None, p99_ms=None, front=False)]
        for engine, scale in {"savedmodel": 300.0, "torchserve": 120.0}.items()
    }


def cost_on(instance: str, provider: str, usd_per_million: float, memory_enough: bool | None = True) -> Cost:
    """What a million images cost on a machine for rent."""
    return Cost(instance, provider, "here", usd_per_million, 1e6, memory_enough, "2026-01-01", "https://example.org")


def costs() -> dict[str, list[Cost]]:
    instances = [("c7i.large", "AWS", 0.089), ("F2s v2", "Azure", 0.085), ("n2-standard-2", "Google Cloud", 0.097)]
    return {
        engine: [cost_on(name, provider, usd / rate / 3600 * 1e6) for name, provider, usd in instances]
        for engine, rate in {"savedmodel": 525, "torchserve": 180}.items()
    }


def run_values() -> dict:
    random = np.random.default_rng(5)
    return {
        label: {
            "savedmodel": random.normal(middle, middle / 30, 5).tolist(),
            "torchserve": [*random.normal(2.4 * middle, middle / 14, 4).tolist(), None],
        }
        for label, middle in {
            "steady load: p50, ms per image": 4.1,
            "steady load: p99, ms per image": 9.2,
            "bursty load: p99, ms per image": 31.0,
            "cold start, s": 4.4,
            "capacity, requests/s": 260.0,
        }.items()
    }


def time_parts() -> dict[str, Parts]:
    parts = ["generator lag", "client and network", "server queue", "pre-processing", "inference", "post-processing"]
    times = {
        "savedmodel": [0.05, 0.6, 0.4, None, 2.6, None, 0.35],
        "torchserve": [0.05, 0.9, 1.9, 0.8, 6.1, 0.1, -0.02],
    }
    return {
        engine: Parts(
            mean_ms=sum(ms for ms in row if ms is not None),
            parts=[Part(part, ms) for part, ms in zip([*parts, "not accounted for"], row, strict=True)],
            notes=[],
        )
        for engine, row in times.items()
    }


def burst_rows() -> dict:
    random = np.random.default_rng(6)
    return {
        engine: [
            Burst(
                index=index,
                start_s=4.0 + 6 * index,
                end_s=6.0 + 6 * index,
                requests=240,
                failed=0,
                violations=int(random.integers(0, most)),
                queue_start=0,
                queue_end=0,
                queue_peak=int(most / 3 + random.integers(0, 12)),
                observed_s=4.0,
                recover_s=None if most > 100 and index % 4 == 3 else float(random.uniform(0.05, most / 60)),
            )
            for _ in range(3)
            for index in range(6)
        ]
        for engine, most in {"savedmodel": 20, "torchserve": 160}.items()
    }


def verdict_rows() -> list[Judgement]:
    rows = [
        ("steady load: p50", 142.0, (118.0, 166.0), "A"),
        ("steady load: p99", 61.0, (22.0, 103.0), "A"),
        ("bursty load: p99", 8.0, (-14.0, 31.0), "inconclusive"),
        ("cold start", 85.0, (71.0, 99.0), "A"),
        ("capacity", -66.0, (-70.0, -61.0), "A"),
        ("peak memory", -21.0, (-25.0, -17.0), "B"),
        ("failed answers", 0.4, (-1.1, 1.9), "equivalent"),
    ]
    judged = [
        judgement(
            label,
            difference_percent=difference,
            ci_percent=interval,
            ratio=1 + difference / 100,
            ratio_ci=None if label == "failed answers" else tuple(1 + end / 100 for end in interval),
            p=0.004,
            g=difference / 10,
            g_ci=(interval[0] / 10, interval[1] / 10),
            smallest_effect_percent=12.0,
            p_holm=0.012,
            outcome=outcome,
        )
        for label, difference, interval, outcome in rows
    ]
    return [*judged, judgement("scaling, 4 replicas", outcome="inconclusive"), scattered("bursty load: p50")]


def scattered(label: str, **numbers) -> Judgement:
    """An inconclusive verdict whose runs scatter so much that the interval says nothing."""
    wide = {"difference_percent": 65.0, "ci_percent": (-43.0, 348.0), "ratio": 1.65, "ratio_ci": (0.57, 4.48)}
    known = {"p": 0.2, "p_holm": 0.6, "g": 0.8, "g_ci": (-0.9, 2.31), "smallest_effect_percent": 350.0, "runs_more": 9}
    return judgement(label, outcome="inconclusive", **{**wide, **known, **numbers})


def judgement(label: str, **numbers) -> Judgement:
    """A verdict on TorchServe against savedmodel; what is not given is None, or as it usually is."""
    unknown = dict.fromkeys(field.name for field in fields(Verdict))
    usual = {"n_a": 3, "n_b": 3, "reason": "", "paired": False, "confidence": 0.95}
    verdict = Verdict(**{**unknown, **usual, **numbers})
    return Judgement(metric=label, label=label, a="savedmodel", b="torchserve", verdict=verdict)
