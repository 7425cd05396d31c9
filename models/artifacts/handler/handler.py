"""The TorchServe handler that is packed into the archive.

It runs inside TorchServe's worker, where this project is not installed: it may import only what is packed beside it
and what TorchServe's image has (torch, numpy, Pillow), and it must run on that image's Python 3.9. TorchServe accepts
one class per handler module.

A request is an encoded image as the body, or JSON: ``{"instances": [{"b64": "..."}, ...]}`` with encoded images, or
``{"instances": [[[[...]]], ...]}`` with normalised float32 HWC tensors. The reply is
``{"predictions": [[p, ...], ...]}``, one row per image. A request that cannot be answered gets status 400 and
TorchServe's own error shape, and does not disturb the others in its batch.

It counts PreprocessTime, InferenceTime and PostprocessTime (ms) and HandledRequests, of which TorchServe's metrics
configuration must list. A batch's time counts once for each of its requests, for each has waited for all of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from preprocessing import ImageError, preprocess  # type: ignore[import-not-found]  # packed beside it

THREADS = os.environ.get("TORCH_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
if THREADS:
    torch.set_num_threads(int(THREADS))

TELL_EVERY_NS = 250_000_000
"""A metric is a line that TorchServe must parse: sums are written four times a second, not for every request."""


class ImageHandler:
    """Decodes, batches over requests and runs one forward pass."""

    def initialize(self, context: Any) -> None:
        """Load the TorchScript file and the input spec from the archive, and warm up with its sample image.

        SERVESTORM_WARMUP=0 in the environment leaves the warm-up to the first requests.
        """
        folder = Path(context.system_properties["model_dir"])
        self.spec = SimpleNamespace(**json.loads((folder / "input.json").read_text()))
        self.shape = (self.spec.height, self.spec.width, self.spec.channels)
        self.network = torch.jit.load(str(folder / context.manifest["model"]["serializedFile"]), map_location="cpu")
        self.network.eval()
        self.counted = {"PreprocessTime": 0, "InferenceTime": 0, "PostprocessTime": 0, "HandledRequests": 0}
        self.reported_ns = 0
        if os.environ.get("SERVESTORM_WARMUP") != "0":
            self.warm_up(folder / "warmup.png")

    def warm_up(self, image: Path) -> None:
        """Answer an encoded image twice: TorchScript specialises on the second run."""
        sample = preprocess(image.read_bytes(), self.spec)
        for _ in range(2):
            self.forward([sample])

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch of requests; one reply each, in order."""
        begin_ns = time.monotonic_ns()
        replies: list[bytes] = [b""] * len(data)
        images: list[Any] = []
        slots: list[tuple[int, int]] = []
        for index, row in enumerate(data):
            context.set_response_content_type(index, "application/json")
            try:
                wanted = self.images_of(row)
            except ValueError as error:  # ImageError is one
                context.set_response_status(400, "Bad Request", index)
                reply = {"code": 400, "type": "BadRequestException", "message": str(error)}
                replies[index] = json.dumps(reply).encode()
                continue
            slots.append((index, len(wanted)))
            images += wanted
        start = 0
        prepared_ns = time.monotonic_ns()
        answers = self.forward(images) if images else []
        answered_ns = time.monotonic_ns()
        for index, count in slots:
            rows = answers[start : start + count]
            replies[index] = json.dumps({"predictions": rows}, separators=(",", ":")).encode()
            start += count
        self.count(context, len(data), begin_ns, prepared_ns, answered_ns, time.monotonic_ns())
        return replies

    def count(self, context: Any, requests: int, *times_ns: int) -> None:
        """Add a batch whose phases lie between `times_ns` to the sums, and write them out now and then."""
        amounts = [times_ns[place + 1] - times_ns[place] for place in range(len(times_ns) - 1)] + [1]
        for place, name in enumerate(self.counted):
            self.counted[name] += amounts[place] * requests
        metrics = getattr(context, "metrics", None)
        if metrics is None or times_ns[-1] - self.reported_ns < TELL_EVERY_NS:
            return
        self.reported_ns = times_ns[-1]
        for name, amount in self.counted.items():
            metrics.add_counter(name, amount / 1e6 if name.endswith("Time") else amount)
            self.counted[name] = 0

    def forward(self, images: list[Any]) -> list[list[float]]:
        """Probabilities of normalised float32 HWC images, as nested lists."""
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            rows: list[list[float]] = self.network(batch).tolist()
        return rows

    def images_of(self, row: dict[str, Any]) -> list[Any]:
        """Normalised float32 HWC images of one request; ValueError with a sentence where it has none."""
        body = row.get("body", row.get("data"))
        if body is None:
            body = next(iter(row.values()), b"")
        if isinstance(body, (bytes, bytearray)) and body.lstrip()[:1] != b"{":
            return [preprocess(bytes(body), self.spec)]
        if not isinstance(body, dict):
            body = self.parsed(body)
        instances = body.get("instances")
        if not isinstance(instances, list) or not instances:
            raise ValueError('the JSON needs a non-empty list "instances".')
        if all(isinstance(instance, dict) for instance in instances):
            return [preprocess(self.decoded(instance), self.spec) for instance in instances]
        return self.tensors(instances)

    def parsed(self, body: Any) -> dict[str, Any]:
        """The JSON object in a body."""
        try:
            value = json.loads(body)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the body is neither an image nor JSON: {error}.") from error
        if not isinstance(value, dict):
            raise ValueError("the JSON is not an object.")
        return value

    def decoded(self, instance: dict[str, Any]) -> bytes:
        """The bytes of {"b64": "..."}."""
        try:
            return base64.b64decode(instance["b64"], validate=True)
        except (KeyError, TypeError, binascii.Error) as error:
            raise ImageError('an instance is not {"b64": "..."} with valid base64.') from error

    def tensors(self, instances: list[Any]) -> list[Any]:
        """Nested lists as normalised float32 HWC arrays."""
        try:
            batch = np.asarray(instances, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError("an instance is neither an image nor a tensor of numbers.") from error
        if batch.shape[1:] != self.shape:
            raise ValueError(f"an instance has shape {batch.shape[1:]}, not {self.shape}.")
        return list(batch)
