"""Payloads that a model takes, looked at before a server starts."""

from __future__ import annotations

from models.manifest import ModelDir
from servestorm.errors import StudyError
from servestorm.plan.study_plan import Plan
from serving.wire import Wire, payload_spec


def refuse_payloads(plan: Plan, wire: Wire, model: ModelDir) -> None:
    """Raise StudyError before a server starts, where the generator could not build the plan's requests."""
    spec = payload_spec(model.manifest)
    for payload in plan.payload:
        if payload == "tensor" and spec.input is None:
            raise StudyError(
                f"the manifest of {model.name} does not say how images become tensors: import the model again with "
                "--mean and --std, or --size for uint8, or leave `payload: tensor` out."
            )
        signature, other = (spec.tensor_signature, "image") if payload == "tensor" else (spec.image_signature, "tensor")
        if wire.artifact == "savedmodel" and signature is None:
            raise StudyError(
                f"the SavedModel of {model.name} has no signature for payload {payload!r}: "
                f"write `payload: {other}` in the plan."
            )
