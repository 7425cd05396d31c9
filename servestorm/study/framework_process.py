"""Work with a framework in a process of its own, so that the study's process stays small and quiet while it measures.

Ctrl-C and a crash of the work end it at once; its errors become ours.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from multiprocessing.connection import Connection
from typing import Any

from models.errors import ModelEnvironmentError, ModelError, ParityError
from servestorm.study.child_processes import tagged

Progress = Callable[[str, float], None]
"""What is done, and the share of it that is done."""


class FrameworkProcess:
    """`work(connection, *arguments)` in a process of its own, which ends with `stop`.

    `work` sends tuples that begin with a word: "progress", with what and which share of it is done, or others of its
    own. `arguments` cross the process border by pickling. `remedy` is for a person whose machine killed it.
    """

    def __init__(self, name: str, work: Callable[..., None], *arguments: Any, progress: Progress, remedy: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe(duplex=True)
        self._progress, self._remedy = progress, remedy
        self._process = context.Process(target=_run, args=(theirs, work, arguments), name=name)
        os.environ.update(tagged())
        self._process.start()
        theirs.close()

    def wait_for(self, word: str) -> tuple[Any, ...]:
        """What the next message with this first word says besides; progress is handed on meanwhile.

        Raises what the work raised, and ModelEnvironmentError where its process was killed.
        """
        while True:
            try:
                kind, *rest = self._connection.recv()
            except (EOFError, ConnectionResetError):
                raise self._killed() from None
            if kind == "progress":
                self._progress(*rest)
            elif kind == "error":
                raise _error(*rest)
            elif kind == word:
                return tuple(rest)

    def tell(self, word: str) -> None:
        """Send a word to the work; raises ModelEnvironmentError where its process was killed."""
        try:
            self._connection.send(word)
        except OSError:
            raise self._killed() from None

    def _killed(self) -> ModelEnvironmentError:
        return ModelEnvironmentError(f"the process that trains was killed (out of memory?): {self._remedy}.")

    def stop(self) -> None:
        """End it, whatever it does."""
        self._process.terminate()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()


def _error(kind: str, sentence: str, details: str = "") -> Exception:
    """The child's error as ours: by name, since not every error survives pickling."""
    known: dict[str, type[Exception]] = {e.__name__: e for e in (ModelError, ModelEnvironmentError, ParityError)}
    error = known.get(kind, RuntimeError)(sentence)
    error.add_note(details)
    return error


def _run(connection: Connection, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # Ctrl-C goes to the whole terminal group: the parent alone decides and ends us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with _errors_told(connection), redirect_stdout(sys.stderr):  # stdout is the study's result
        work(connection, *arguments)


@contextmanager
def _errors_told(connection: Connection) -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        connection.send(("error", type(error).__name__, str(error)))
    except OSError as error:
        sentence = f"{error.filename or 'the disk'}: {error.strerror or error}"
        connection.send(("error", "ModelEnvironmentError", sentence))
    except Exception as error:  # noqa: BLE001 (a bug of ours crosses the process border as text)
        first = (str(error).strip().splitlines() or ["no words"])[0]
        sentence = f"{type(error).__name__} while a framework worked: {first}"
        connection.send(("error", "RuntimeError", sentence, "".join(traceback.format_exception(error))))
