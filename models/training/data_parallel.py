"""Several processes that train one torch network together: each computes a part of every batch.

Torch's DistributedDataParallel averages their gradients over gloo, on this machine alone. The first process is the
learner's own; the others, its followers, do what it tells them. An epoch's images are written once, into memory that
all of them map.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from models.errors import ModelEnvironmentError

LOOPBACK = "lo"
HERE = "here"
_SOON_S = 5.0


@dataclass(frozen=True)
class Place:
    """Which of the processes this is."""

    rank: int = 0
    processes: int = 1

    def part(self, batch: torch.Tensor) -> tuple[torch.Tensor, float]:
        """This process's share of a batch's indices, and what its mean loss counts.

        Shares differ by one image at most; with the factor, the mean over processes is the mean over the batch.
        """
        mine = batch[self.rank :: self.processes]
        return mine, len(mine) * self.processes / len(batch)

    def total(self, value: float) -> float:
        """The sum of every process's value."""
        if self.processes == 1:
            return value
        values = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(values)
        return float(values)


@dataclass(frozen=True)
class EpochOrder:
    """What every follower hears at the begin of an epoch."""

    memory: str
    """Path of the images' memory: float32."""
    shape: tuple[int, ...]
    """(n, channels, height, width)."""
    labels: NDArray[np.int64]
    learning_rate: float

    def images(self) -> torch.Tensor:
        """The images of the epoch, in the memory that all processes share."""
        return torch.from_numpy(np.memmap(self.memory, np.float32, "r+", shape=self.shape))


class Followers:
    """The other processes of a learner, from its making to `close`.

    Each runs `work(connection, place, *arguments)`, which joins with `meet` and then follows EpochOrders from the
    connection until its end.
    """

    def __init__(self, processes: int, work: Callable[..., None], *arguments: Any) -> None:
        self.place = Place(0, processes)
        self._memory = os.memfd_create("servestorm-training")
        self._folder = tempfile.TemporaryDirectory(prefix="servestorm-training-")
        self._connections: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        meeting = Path(self._folder.name, "meeting").as_uri()
        try:
            for rank in range(1, processes):
                self._start(rank, meeting, work, arguments)
            with self.told():
                for connection in self._connections:
                    if (said := connection.recv()) != HERE:
                        raise RuntimeError(said)
                meet(meeting, self.place)
        except BaseException:
            self.close()
            raise

    def _start(self, rank: int, meeting: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        given = (theirs, meeting, Place(rank, self.place.processes), torch.get_num_threads(), work, arguments)
        process = context.Process(target=_follow, args=given, name=f"servestorm-train-{rank}", daemon=True)
        process.start()
        theirs.close()
        self._connections.append(ours)
        self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        """Of the other processes."""
        return [process.pid for process in self._processes if process.pid is not None]

    def begin(self, images: NDArray[np.float32], labels: NDArray[np.int64], learning_rate: float) -> torch.Tensor:
        """Let the others begin an epoch over images (n, height, width, channels); returns what all of them see."""
        count, height, width, channels = images.shape
        order = EpochOrder(
            f"/proc/{os.getpid()}/fd/{self._memory}", (count, channels, height, width), labels, learning_rate
        )
        os.ftruncate(self._memory, images.nbytes)
        shared = order.images()
        shared.copy_(torch.from_numpy(images).permute(0, 3, 1, 2))
        for connection in self._connections:
            connection.send(order)
        return shared

    @contextmanager
    def told(self) -> Iterator[None]:
        """Raise ModelEnvironmentError for what fails meanwhile because one of the others was killed.

        What else fails has what the others raised as its notes.
        """
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            for process in self._processes:
                process.join(_SOON_S / len(self._processes))
            if any((process.exitcode or 0) < 0 for process in self._processes):
                raise ModelEnvironmentError(
                    f"One of the {self.place.processes} processes that train together was killed (out of memory?): "
                    "free memory, or choose fewer processes, fewer images or a smaller network."
                ) from error
            for connection in self._connections:
                with suppress(OSError, EOFError):
                    if connection.poll():
                        error.add_note(str(connection.recv()))
            raise

    def close(self) -> None:
        """End the others."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(_SOON_S)
            process.kill()
            process.join()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        with suppress(OSError):
            os.close(self._memory)
        self._folder.cleanup()


def meet(meeting: str, place: Place) -> None:
    """Join the others, over the loopback interface; `meeting` is the address of a file that all of them see."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    distributed.init_process_group("gloo", init_method=meeting, rank=place.rank, world_size=place.processes)


def _follow(
    connection: Connection,
    meeting: str,
    place: Place,
    threads: int,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole terminal group: the first process decides
    torch.set_num_threads(threads)
    try:
        connection.send(HERE)
        meet(meeting, place)
        work(connection, place, *arguments)
    except (EOFError, ConnectionError):  # the first process closed the connection, or has ended
        return
    except Exception as error:  # noqa: BLE001 (told by the first process)
        with suppress(OSError):
            connection.send("".join(traceback.format_exception(error)))
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
