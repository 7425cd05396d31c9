"""What the signatures of savedmodel_zoo.py take, which is what valid requests are made of.

The zoo's `spin` is left out: a number that damage makes long would keep a server busy for hours.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.serving.savedmodel_server.savedmodel_zoo import ECHO_DTYPES

HALF, ZOO = "half_plus_two", "zoo"
FREE = -1
"""A dimension of any size."""


@dataclass(frozen=True)
class Input:
    """An input's type by its numpy name, or "image" for pictures in strings, and its shape; None is any rank."""

    dtype: str
    shape: tuple[int, ...] | None = (FREE,)


@dataclass(frozen=True)
class Signature:
    """A signature with its inputs by name; `outputs` are names that an output filter may hold."""

    model: str
    name: str
    inputs: dict[str, Input]
    outputs: tuple[str, ...] = ("y",)


VECTOR = Input("float32")
SIGNATURES = (
    Signature(HALF, "serving_default", {"x": VECTOR}),
    Signature(ZOO, "serving_default", {"x": Input("float32", (FREE, 3))}),
    Signature(
        ZOO,
        "two_in_two_out",
        {"a": Input("float32", (FREE, 2)), "b": Input("float32", (FREE, 2))},
        ("sum", "product"),
    ),
    Signature(ZOO, "image_like", {"x": Input("float32", (FREE, 4, 4, 3))}, ("mean",)),
    Signature(ZOO, "any_rank", {"x": Input("float32", None)}),
    Signature(ZOO, "scalar", {"x": Input("float32", ())}),
    Signature(ZOO, "to_bytes", {"x": Input("string")}, ("y_bytes", "y_text")),
    Signature(ZOO, "not_finite", {"x": VECTOR}),
    Signature(ZOO, "uneven", {"x": VECTOR}, ("y", "z")),
    Signature(ZOO, "half", {"x": VECTOR}),
    Signature(ZOO, "raises", {"x": VECTOR}),
    Signature(ZOO, "image", {"image_bytes": Input("image")}, ("mean",)),
    *(Signature(ZOO, f"echo_{dtype}", {"x": Input(dtype)}) for dtype in ECHO_DTYPES),
)
EXAMPLE_SIGNATURES = {"classify": "classify_x_to_y", "regress": "regress_x_to_y"}
"""Of half_plus_two: they take tf.Examples with one float, x."""
