"""Which cell of a round an error is the fault of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from servestorm.plan.cells import Cell
from servestorm.study.load import GeneratorError
from serving.errors import DeploymentError

_NOTE = "cell "


@contextmanager
def blamed_on(cell: Cell) -> Iterator[None]:
    """What fails in the block is the fault of this cell, unless it was another's already."""
    try:
        yield
    except (DeploymentError, GeneratorError) as error:
        if not _noted(error):
            error.add_note(f"{_NOTE}{cell.id}")
        raise


def cell_at_fault(error: BaseException, cells: Sequence[Cell]) -> Cell | None:
    """The cell of these that the error is the fault of; None where none was named."""
    return next((cell for cell in cells if f"{_NOTE}{cell.id}" in _noted(error)), None)


def _noted(error: BaseException) -> list[str]:
    return [note for note in getattr(error, "__notes__", []) if note.startswith(_NOTE)]
