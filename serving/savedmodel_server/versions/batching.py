"""Batching parameters: TensorFlow Serving's text proto, its defaults and its checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.savedmodel_server.errors import FlagError
from serving.savedmodel_server.textproto import message_class, read_text_proto


@dataclass(frozen=True)
class BatchingParameters:
    """TensorFlow Serving's BatchingParameters with its defaults; sizes are rows."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 4
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0

    @property
    def most_rows_run(self) -> int:
        """Rows of the largest batch that is run; a request of more is split where that is on, else refused."""
        return self.max_execution_batch_size or self.max_batch_size

    @property
    def most_rows(self) -> int:
        """Rows that may be queued or running at a time; more are refused as UNAVAILABLE."""
        return self.most_rows_run * (self.max_enqueued_batches + self.num_batch_threads)

    def padding(self, rows: int) -> int:
        """Rows to be added to a batch of `rows`, so that it has one of the allowed sizes."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows) - rows

    def check(self, path: Path | None) -> None:
        """Raise FlagError where TensorFlow Serving would refuse the values."""
        where = f"--batching_parameters_file={path}"
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise FlagError(f"{where}: {name} must be at least 1.")
        if self.batch_timeout_micros < 0:
            raise FlagError(f"{where}: batch_timeout_micros must not be negative.")
        sizes = self.allowed_batch_sizes
        last = self.most_rows_run
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != last):
            raise FlagError(f"{where}: allowed_batch_sizes must increase and end with {last}.")
        if self.max_execution_batch_size and not self.enable_large_batch_splitting:
            raise FlagError(f"{where}: max_execution_batch_size needs enable_large_batch_splitting.")
        if self.max_execution_batch_size > self.max_batch_size:
            raise FlagError(f"{where}: max_execution_batch_size must not be larger than max_batch_size.")


def read_batching_parameters(path: Path | None, threads: int) -> BatchingParameters:
    """From a BatchingParameters text proto; `threads` is the default of num_batch_threads. Raises FlagError."""
    if path is None:
        return BatchingParameters(num_batch_threads=threads)
    proto = read_text_proto(path, message_class("BatchingParameters")(), "batching_parameters_file")
    if proto.pad_variable_length_inputs:
        raise FlagError(
            f"--batching_parameters_file={path}: pad_variable_length_inputs is not supported: "
            "send rows of one shape, or pad them in the model."
        )
    given: dict[str, Any] = {
        field.name: value.value for field, value in proto.ListFields() if field.message_type is not None
    }
    parameters = BatchingParameters(
        **{"num_batch_threads": threads, **given}, allowed_batch_sizes=tuple(proto.allowed_batch_sizes)
    )
    parameters.check(path)
    return parameters
