"""How training scales over processes that compute parts of each batch."""

from __future__ import annotations

from dataclasses import replace

from servestorm.analysis.figures import DataParallel
from servestorm.analysis.metric import Value
from servestorm.methods.ratio import effect_of, ratio_interval
from servestorm.methods.rounds import pairs_of
from servestorm.plan.training import Training, TrainingSetting, settings_of

LEVEL = 0.05


def with_fewest_processes(training: Training, setting: TrainingSetting) -> TrainingSetting | None:
    """The setting that differs in having the plan's fewest processes; None for one that has them itself."""
    fewest = min(training.processes)
    if setting.processes == fewest:
        return None
    wanted = replace(setting, processes=fewest, label="")
    return next(one for one in settings_of(training) if replace(one, label="") == wanted)


def data_parallel(several: Value, fewest: Value, processes: tuple[int, int]) -> DataParallel | None:
    """From images learnt from in a second with `processes` (several, fewest); None where either may not be quoted.

    Runs of the same repetition are compared, where both sides have two of them at least.
    """
    if several.quotable is None or not fewest.quotable:
        return None
    rounds = (fewest.rounds, several.rounds) if fewest.rounds and several.rounds else None
    pairs = pairs_of(fewest.runs, several.runs, rounds)
    effect = effect_of(pairs.a, pairs.b, paired=pairs.paired)
    interval = ratio_interval(effect, LEVEL) if effect else None
    share = 100 * processes[1] / processes[0]
    speedup = several.quotable / fewest.quotable
    return DataParallel(
        processes=processes[0],
        fewest=processes[1],
        speedup=speedup,
        speedup_ci=interval,
        efficiency_percent=share * speedup,
        efficiency_percent_ci=(share * interval[0], share * interval[1]) if interval else None,
    )
