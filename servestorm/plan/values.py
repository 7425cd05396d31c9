"""What the sections of a plan have in common: their base, and the kinds of values that they hold."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

EngineName = Literal["savedmodel", "torchserve", "tfserving"]
FrameworkName = Literal["keras", "torch"]
SideName = Literal["savedmodel", "torchserve", "tfserving", "keras", "torch"]
"""What a study compares: servers, or the frameworks of a training."""
DatasetName = Literal["digits", "cifar10", "folder", "imagenet-folder", "medmnist", "xray", "synthetic"]
NetworkName = Literal["cnn", "resnet50-keras", "resnet50-torchvision", "vgg16", "googlenet", "efficientnet-lite0"]
DeviceName = Literal["cpu", "gpu"]
PrecisionName = Literal["float32", "bfloat16"]
PixelSize = Annotated[str, Field(pattern=r"^[1-9]\d{0,3}x[1-9]\d{0,3}$")]
"""HEIGHTxWIDTH."""
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

_UNITS_S: Final = {"s": 1, "min": 60, "h": 3600}


def _as_seconds(value: Any) -> Any:
    """Seconds of a text such as '10 min', '90 s' or '1 h'; anything else as it is."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h)\s*", value)
    if not match:
        raise ValueError("write a time such as 10 min, 90 s or 1 h, or seconds as a number")
    return float(match[1]) * _UNITS_S[match[2]]


Duration = Annotated[float, BeforeValidator(_as_seconds), Field(gt=0, le=604_800)]
"""Seconds, which a person may write as '10 min'."""

BATCH_TIMEOUT: Final = (
    "microseconds after which a batch is run although it is not full; a request may wait longer: the TensorFlow "
    "servers look about once a millisecond, TorchServe takes whole milliseconds, rounded up"
)
"""What timeout_us of the plan means, which no engine keeps exactly."""


HOLDS_SECRET: Final = "holds_secret"
"""Type of the fault of a value that may be a secret: it is not repeated."""


class Strict(BaseModel):
    """A section of the plan: it refuses keys that it does not know, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
