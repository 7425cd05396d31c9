"""What requests and replies look like for each engine, over REST and gRPC, as plain bytes.

The load generator imports this package, so it stays light: numpy, orjson, protobuf; never tensorflow, torch
or ts. Requests are built once and sent many times; how they travel is not this package's concern.
"""

from __future__ import annotations

from serving.wire.messages import (
    PAYLOADS,
    USUAL,
    GrpcRequest,
    PayloadSpec,
    RestRequest,
    Tolerance,
    Wire,
    is_right,
    payload_spec,
)
from serving.wire.tfserving import TfServingWire
from serving.wire.torchserve import TorchServeWire

_TF_SERVING = TfServingWire()

WIRES: dict[str, Wire] = {
    "tfserving": _TF_SERVING,
    "savedmodel": _TF_SERVING,
    "torchserve": TorchServeWire(),
}
"""Engine name to the wire format it speaks."""

__all__ = [
    "PAYLOADS",
    "USUAL",
    "WIRES",
    "GrpcRequest",
    "PayloadSpec",
    "RestRequest",
    "Tolerance",
    "Wire",
    "is_right",
    "payload_spec",
]
