"""Runs an archive's handler as TorchServe's worker would: its own loader and context, a fresh process.

Started by path as `python -P worker.py FOLDER BATCH,BATCH,...`, so that neither this package nor its folder
is on the path: the handler finds only what was packed. FOLDER holds `model/` (the unpacked archive) and `images/`
(encoded, one file each, in name order). The answer goes to FOLDER/replies.json: `{"replies": [{"status", "body"}]}`
with the body in base64, or `{"failed": "load" | "handle", "error": "..."}`.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main(folder: Path, batch_sizes: list[int]) -> None:
    """Load the handler, feed it every image, write its answers. The last batch size repeats."""
    images = [path.read_bytes() for path in sorted((folder / "images").iterdir())]
    stage = "load"
    try:
        service = _load(folder / "model", max(batch_sizes))
        stage = "handle"
        replies = [reply for batch in _batches(images, batch_sizes) for reply in _handle(service, batch)]
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever a foreign handler raises is the answer
        cause = _cause(error)
        result: dict[str, Any] = {"failed": stage, "error": f"{type(cause).__name__}: {cause}"}
    else:
        result = {"replies": replies}
    (folder / "replies.json").write_text(json.dumps(result))


def _cause(error: BaseException) -> BaseException:
    """The loader tries its own handlers after a failed import, and fails anew: the first failure is what matters."""
    masked = isinstance(error, ImportError) and (error.name or "").startswith("ts.torch_handler.")
    return error.__context__ if masked and error.__context__ else error


def _load(model_dir: Path, batch_size: int) -> Any:
    from ts.model_loader import TsModelLoader

    sys.path.insert(0, str(model_dir))
    manifest = json.loads((model_dir / "MAR-INF" / "MANIFEST.json").read_text())
    model = manifest["model"]
    return TsModelLoader().load(
        model["modelName"],
        str(model_dir),
        handler=model["handler"],
        batch_size=batch_size,
        envelope=model.get("envelope"),
        metrics_cache=_metrics(),
    )


def _metrics() -> Any:
    """TorchServe's own metrics cache, because its base handlers write to it."""
    import ts
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

    cache = MetricsCacheYamlImpl(config_file_path=str(Path(ts.__file__).parent / "configs" / "metrics.yaml"))
    cache.initialize_cache()
    return cache


def _batches(images: list[bytes], sizes: list[int]) -> Iterator[list[bytes]]:
    start = turn = 0
    while start < len(images):
        size = sizes[min(turn, len(sizes) - 1)]
        yield images[start : start + size]
        start, turn = start + size, turn + 1


def _handle(service: Any, images: list[bytes]) -> list[dict[str, Any]]:
    from ts.context import RequestProcessor

    context = service.context
    context.request_ids = {index: str(index) for index in range(len(images))}
    context.metrics.request_ids = context.request_ids
    context.request_processor = [RequestProcessor({}) for _ in images]
    answers = service._entry_point([{"body": bytearray(image)} for image in images], context)
    if not isinstance(answers, list) or len(answers) != len(images):
        raise TypeError(f"the handler answered {len(images)} requests with {_count(answers)}.")
    return [
        {"status": context.get_response_status(index)[0], "body": base64.b64encode(_body(answer)).decode()}
        for index, answer in enumerate(answers)
    ]


def _count(answers: Any) -> str:
    return f"{len(answers)} replies" if isinstance(answers, list) else f"a {type(answers).__name__}"


def _body(answer: Any) -> bytes:
    """The bytes that TorchServe makes of an answer (ts.protocol.otf_message_handler.create_predict_response)."""
    import torch

    if isinstance(answer, (bytes, bytearray)):
        return bytes(answer)
    if isinstance(answer, str):
        return answer.encode()
    if isinstance(answer, torch.Tensor):
        raise TypeError("a torch.Tensor is sent as a file of torch.save: answer with .tolist() of it.")
    return json.dumps(answer, indent=2).encode()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(size) for size in sys.argv[2].split(",")])
