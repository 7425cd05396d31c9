"""What serves an artifact: one module an engine, each with its configuration, readiness and metrics."""

from __future__ import annotations

from serving.deployment import Engine
from serving.engines.savedmodel import SavedModelEngine
from serving.engines.tfserving import TfServingEngine
from serving.engines.torchserve import TorchServeEngine

ENGINES: dict[str, Engine] = {
    "tfserving": TfServingEngine(),
    "savedmodel": SavedModelEngine(),
    "torchserve": TorchServeEngine(),
}
"""Engine name to the engine."""

__all__ = ["ENGINES"]
