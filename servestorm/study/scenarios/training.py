"""Training: a network learns in a framework, and no server stands."""

from __future__ import annotations

from servestorm.plan.study_plan import Plan
from servestorm.study.scenario import ScenarioOutlook

EPOCH_GUESS_S = 6.0
"""Of a small network on a small data set; only the progress bar's first guess."""


class TrainingCells(ScenarioOutlook):
    """As many epochs as the plan says."""

    label = "training"

    def expected_s(self, plan: Plan) -> float:
        """See ScenarioOutlook."""
        assert plan.training
        return EPOCH_GUESS_S * plan.training.epochs

    def runs(self, plan: Plan) -> int:
        """See ScenarioOutlook."""
        return plan.repetitions
