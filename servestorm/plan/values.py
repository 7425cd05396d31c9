"""What the sections of a plan have in common: their base, and the kinds of values that they hold."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

EngineName = Literal["savedmodel", "torchserve", "tfserving"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Milliseconds = Annotated[float, Field(gt=0, le=3_600_000)]
Rate = Annotated[float, Field(gt=0, le=1_000_000)]
Count = Annotated[int, Field(ge=1, le=10_000)]
Percent = Annotated[float, Field(gt=0, le=100)]
Warmup = Annotated[float, Field(ge=0, le=3600)]
Protocol = Literal["rest", "grpc"]
Payload = Literal["image", "b64", "tensor"]
Images = Annotated[int, Field(ge=1, le=1024)]
Item = TypeVar("Item")
OneOrMore = Annotated[list[Item], BeforeValidator(lambda v: v if isinstance(v, list) else [v]), Field(min_length=1)]
"""One value, or a list of values that are all studied."""

BATCH_TIMEOUT: Final = (
    "microseconds after which a batch is run although it is not full; a request may wait longer: the TensorFlow "
    "servers look about once a millisecond, TorchServe takes whole milliseconds, rounded up"
)
"""What timeout_us of the plan means, which no engine keeps exactly."""


class Strict(BaseModel):
    """A section of the plan: it refuses keys that it does not know, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
