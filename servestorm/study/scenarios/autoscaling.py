"""Autoscaling: bursts on replicas that an autoscaler adds and removes."""

from __future__ import annotations

import time
from pathlib import Path

from servestorm.methods.autoscaling import COOLDOWN_ENDED
from servestorm.plan.study_plan import Plan
from servestorm.study.cell_load import CellLoad
from servestorm.study.context import StudyContext, autoscaler_of
from servestorm.study.load import bursty_load
from servestorm.study.scenario import StudyScenario, loads_guess_s
from serving.backend import Backend
from serving.errors import DeploymentError

METRICS_GUESS_S = 60.0
"""Until an autoscaler has the metrics of pods that are new."""
LOOK_EVERY_S = 0.25


class AutoscalingCells(StudyScenario):
    """One bursty load on autoscaled replicas, watched until they are few again."""

    label = "autoscaling"

    def measure(self, load: CellLoad, folder: Path) -> None:
        """See StudyScenario."""
        assert load.plan.autoscaling
        bursts = bursty_load(load.plan.autoscaling, load.variant.images_per_request)
        # a second try would begin with the replicas that the first one's bursts have made
        load.offer(bursts, folder, most_attempts=1)
        _watch_scale_down(load, load.plan.autoscaling.watch_after_s)

    def expected_s(self, plan: Plan) -> float:
        """See StudyScenario."""
        asked = plan.autoscaling
        assert asked
        return METRICS_GUESS_S + asked.watch_after_s + loads_guess_s(asked.duration_s, asked.warmup_s)

    def runs(self, plan: Plan) -> int:
        """See StudyScenario."""
        return (plan.autoscaling.repetitions if plan.autoscaling else None) or plan.repetitions

    def backend(self, context: StudyContext) -> Backend:
        """See StudyScenario."""
        autoscaler = autoscaler_of(context.plan)
        assert autoscaler
        return context.backend.autoscaled(autoscaler)


def _watch_scale_down(load: CellLoad, watch_s: float) -> None:
    """Wait while the autoscaler removes its replicas again; the deployment's events record it."""
    end = time.monotonic() + watch_s
    while (left_s := end - time.monotonic()) > 0:
        if not load.deployment.alive():
            raise DeploymentError(f"a server died after the load; its last lines: {load.deployment.logs(8)}")
        time.sleep(min(LOOK_EVERY_S, left_s))
    load.events.add(COOLDOWN_ENDED)
