"""Made-up engines with a known ratio: a fresh instance of each in every round, on a machine that drifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from servestorm.methods.decisions import Decisions, decisions
from servestorm.methods.verdict import Question

INSTANCE = 0.02
"""Standard deviation between instances of an engine, a share of its mean."""
DRIFT = 0.10
"""Standard deviation of the machine's walk from one round to the next, a share: both engines of a round have it."""
SLICES = 5
SLICE = 0.03
"""Standard deviation between slices of a run, a share."""


@dataclass(frozen=True)
class MadeUpEngines:
    """Two engines; b's true mean is `ratio` times a's."""

    ratio: float
    rng: np.random.Generator

    def rounds(self, count: int) -> tuple[list[float], list[float]]:
        """One number of each engine for each round."""
        machine = np.exp(np.cumsum(DRIFT * self.rng.standard_normal(count)))
        return self._runs(3.0, machine), self._runs(3.0 * self.ratio, machine)

    def _runs(self, mean: float, machine: np.ndarray) -> list[float]:
        instance = np.exp(INSTANCE * self.rng.standard_normal(machine.size))
        slices = np.exp(SLICE * self.rng.standard_normal((machine.size, SLICES)))
        return list(mean * machine * instance * slices.mean(axis=1))


def paired(a: list[float], b: list[float], looks: tuple[float, ...] = (), count: int | None = None) -> Question:
    """b against a from the first `count` rounds."""
    rounds = list(range(1, len(a) + 1))[:count]
    return Question(a[:count], b[:count], "lower", rounds=(rounds, rounds), looks=looks)


def study(
    engines: list[MadeUpEngines], rounds: int, least: int = 2, margin: float = 0.05
) -> tuple[int, Decisions[int]]:
    """A study that looks after each round from `least` on: the round after which it stopped, with what it knew.

    Each pair of engines is one question of the family.
    """
    runs = [pair.rounds(rounds) for pair in engines]
    shares: tuple[float, ...] = ()
    for count in range(least, rounds + 1):
        shares = (*shares, count / rounds)
        known = decisions({key: paired(a, b, shares, count) for key, (a, b) in enumerate(runs)}, margin)
        if known.may_stop:
            break
    return count, known
