"""Deployments that stand together take turns under load: one generator each, all of them with the same start."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic_ns
from typing import Final

from loadtests.start_file import ready_file
from servestorm.plan.turns import LoadTurn, Slicing, turn_tables
from servestorm.rundir import files
from servestorm.rundir.files import write_json, write_text
from servestorm.rundir.shapes.cell import FinishedLoadFile
from servestorm.study.cell_load import CellLoad, offer_until_valid, watched
from servestorm.study.faults import blamed_on
from servestorm.study.load import LoadCommand, LoadOrder, in_turns
from servestorm.study.slice_cpu import S_NS, CpuReading, reading_times_s, slice_files, slices_in_time
from serving.errors import DeploymentError

GENERATORS_START_GUESS_S: Final = 4.0
"""Until the generators are ready: they load their programs on a core that they share."""
_START_AHEAD_S: Final = 1.0
"""From the moment when they are told to the start. They connect meanwhile, which took over 0.5 s beside many tests."""
_LOOK_EVERY_S: Final = 0.05


def offer_in_turns(
    loads: Sequence[CellLoad],
    folders: Sequence[Path],
    command: Callable[[CellLoad], LoadCommand],
    slicing: Slicing,
    meanwhile: Callable[[], None],
) -> list[FinishedLoadFile]:
    """Load each deployment in its turns and give the summaries; all again where one is DISTURBED or INVALID.

    `command` gives the load of a deployment, without turns. `meanwhile` is what must have been done before any load:
    the generators load their programs during it. Every folder gets the files of a load and slices.json.
    """
    cell = loads[0].cell
    tables = turn_tables(slicing, len(loads), f"{cell.seed} {cell.scenario} {cell.variant}")
    length_s = slicing.seconds(len(loads))
    commands = [in_turns(command(load), table, length_s) for load, table in zip(loads, tables, strict=True)]
    return offer_until_valid(loads, folders, lambda: _offer_once(loads, folders, commands, slicing, meanwhile))


def _offer_once(
    loads: Sequence[CellLoad],
    folders: Sequence[Path],
    commands: Sequence[LoadCommand],
    slicing: Slicing,
    meanwhile: Callable[[], None],
) -> None:
    tables = [command.turns for command in commands]
    readings: list[list[CpuReading]] = []
    with watched(loads, folders):
        start_ns = None
        cancelled = threading.Event()
        orders = [
            load.order(command, folder, folder / files.START, cancelled)
            for load, command, folder in zip(loads, commands, folders, strict=True)
        ]
        try:
            with _offered(loads, orders, cancelled) as futures:
                meanwhile()
                _wait_ready(folders, futures)
                start_ns = monotonic_ns() + round(_START_AHEAD_S * S_NS)
                _tell_start(folders, start_ns)
                _read_in_gaps(loads, tables, slicing.gap_s, start_ns, futures, readings)
        finally:
            if start_ns is not None:
                for folder, slices in zip(folders, slice_files(tables, slicing, start_ns, readings), strict=True):
                    write_json(folder / files.SLICES, slices.model_dump())


def _wait_ready(folders: Sequence[Path], futures: Sequence[Future[None]]) -> None:
    """Wait until every generator is ready, or has ended."""
    ready = [ready_file(folder / files.START) for folder in folders]
    while not all(path.exists() for path in ready):
        done = wait(futures, _LOOK_EVERY_S, FIRST_EXCEPTION)
        if not done.not_done or any(future.exception() for future in done.done):
            break


def _tell_start(folders: Sequence[Path], start_ns: int) -> None:
    """Tell all generators the same start."""
    for folder in folders:
        write_text(folder / files.START, f"{start_ns}\n")
    for folder in folders:
        ready_file(folder / files.START).unlink(missing_ok=True)


@contextmanager
def _offered(
    loads: Sequence[CellLoad], orders: Sequence[LoadOrder], cancelled: threading.Event
) -> Iterator[list[Future[None]]]:
    """All loads, offered at once; raises the first fault when all have ended, and an interrupt ends them."""
    faults: list[Exception] = []

    def offer(load: CellLoad, order: LoadOrder) -> None:
        try:
            with blamed_on(load.cell):
                load.generator.offer(order)
        except Exception as error:
            faults.append(error)
            cancelled.set()  # the others would go on for minutes
            raise

    with ThreadPoolExecutor(len(loads), "generator") as threads:
        futures = [threads.submit(offer, *pair) for pair in zip(loads, orders, strict=True)]
        try:
            yield futures
            wait(futures)
        except BaseException:
            cancelled.set()
            raise
    if faults:
        raise faults[0]


def _read_in_gaps(
    loads: Sequence[CellLoad],
    tables: Sequence[Sequence[LoadTurn]],
    gap_s: float,
    start_ns: int,
    futures: Sequence[Future[None]],
    readings: list[list[CpuReading]],
) -> None:
    """Read what each deployment has used in every gap between slices, until the loads end."""
    for due_s in reading_times_s(slices_in_time(tables), gap_s):
        left_s = (start_ns - monotonic_ns()) / S_NS + due_s
        done = wait(futures, max(0.0, left_s), FIRST_EXCEPTION)
        if not done.not_done or any(future.exception() for future in done.done):
            return
        readings.append([_reading(load) for load in loads])


def _reading(load: CellLoad) -> CpuReading:
    """The CPU time of a deployment; one that cannot be asked shows in its answers."""
    cpu_s = None
    with suppress(DeploymentError):
        cpu_s = load.deployment.cpu_s()
    return CpuReading(monotonic_ns(), cpu_s)
