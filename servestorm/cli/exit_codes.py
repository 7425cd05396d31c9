"""The one error boundary: turns what went wrong into one sentence on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

OK, OBJECTIVE_MISSED, USAGE, ENVIRONMENT, INVALID, BUG, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130


def guard(action: Callable[[], int]) -> int:
    """Run `action`; errors that a person can cause become a sentence, ours a file to report."""
    with orderly_interrupts():
        try:
            code = action()
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            return tell("interrupted.", INTERRUPTED)
        except BrokenPipeError:
            # whoever read our output has enough (`| head`); nothing more can be told there
            _give_output_up()
            return OK
        except Exception as error:  # noqa: BLE001 (the boundary is where everything ends)
            told = explain(error)
            try:
                sys.stdout.flush()
            except OSError:  # it goes to a full disk: Python would say so once more, with a code of its own
                _give_output_up()
            return tell(*told)


def _give_output_up() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(sentence: str, code: int) -> int:
    """Write the sentence to stderr and hand the code on."""
    sys.stderr.write(f"servestorm: {sentence}\n")
    return code


def explain(error: Exception) -> tuple[str, int]:
    """The sentence and the exit code for an error."""
    # the packages' error modules are light, but --help needs none of them
    from loadtests.errors import LoadEnvironmentError, LoadTestError
    from models.errors import ModelEnvironmentError, ModelError, ParityError
    from servestorm.errors import StudyError
    from serving.errors import DeploymentError, EngineUnavailable, ServingError

    if isinstance(error, StudyError):
        return str(error), error.exit_code
    if isinstance(error, ParityError):
        return str(error), INVALID
    if isinstance(error, (ModelEnvironmentError, LoadEnvironmentError, EngineUnavailable, DeploymentError)):
        return str(error), ENVIRONMENT
    if isinstance(error, (ModelError, LoadTestError, ServingError)):
        return str(error), USAGE
    if sentence := _environment(error):
        return sentence, ENVIRONMENT
    return _bug(error), BUG


def _environment(error: Exception) -> str | None:
    """A sentence for an extra of ours that is not installed, and for what the operating system refuses; else None."""
    from serving import extras

    if isinstance(error, ModuleNotFoundError):
        return extras.explain(error, "this command")
    return _operating_system(error) if isinstance(error, OSError) else None


def _operating_system(error: OSError) -> str | None:
    """A sentence for faults of files and disks; None where the fault names no file and so is ours."""
    path = error.filename or getattr(error, "path", None)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {path}" if path else f" (looked at {_writable_places()})"
        return f"no space left on the disk{where}: free some, or choose another place with --out."
    if path is None and "No usable temporary directory" in str(error):  # of `tempfile`, which tries to write there
        return "no temporary folder can be written: free some space in /tmp, or name another folder in TMPDIR."
    if path is None:
        return None
    reason = (error.strerror or str(error)).lower()
    return f"{path}: {reason}; choose another path, or change its permissions."


def _writable_places() -> str:
    import tempfile

    try:
        return f"{Path.cwd()} and {tempfile.gettempdir()}"
    except FileNotFoundError:  # no temporary folder is left that can be written
        return f"{Path.cwd()}"


def _bug(error: Exception) -> str:
    import tempfile
    import traceback

    from serving.headers import without_values

    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="servestorm-bug-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(f"{without_values(sys.argv)}\n{sys.version}\n{text}")
        where = f"the traceback is in {file.name}"
    except OSError:
        where = text
    return f"a bug of ours ({type(error).__name__}: {error}). Please report it; {where}"


class _Interrupts:
    """What Ctrl-C, SIGTERM and SIGHUP do: they interrupt once, and never in the middle of an import.

    An import that is cut short may leave a library half made, and raise another error or none. Where nothing was begun
    yet, the process ends at once instead; later the interrupt comes when the import is done, or has taken too long.
    """

    def __init__(self) -> None:
        self.begun = False
        """Whether there may be something to clean up."""
        self._seen = False
        self._put_off_since_s: float | None = None
        self._alarm: Any = None
        """What SIGALRM did before an interrupt was put off."""

    def signalled(self, _number: int, frame: FrameType | None) -> None:
        """Of the first signal: KeyboardInterrupt; the next ones leave the clean-up alone."""
        if self._seen:
            sys.stderr.write("servestorm: still cleaning up, a moment.\n")
            return
        self._raise(frame)

    def again(self, _number: int, frame: FrameType | None) -> None:
        """The interrupt that was put off."""
        if not self._seen:
            self._raise(frame)

    def swallowed(self, lost: sys.UnraisableHookArgs) -> None:
        """Python cannot raise from a finaliser or a callback: it would print the interrupt, and go on without it."""
        if isinstance(lost.exc_value, KeyboardInterrupt):
            self._seen = False
            self._put_off()
        else:
            sys.__unraisablehook__(lost)

    def _raise(self, frame: FrameType | None) -> None:
        if _imports(frame):
            if not self.begun:
                os.write(2, b"servestorm: interrupted.\n")
                os._exit(INTERRUPTED)
            if self._put_off_since_s is None:
                self._put_off_since_s = time.monotonic()
            if time.monotonic() - self._put_off_since_s < _LONGEST_IMPORT_S:
                self._put_off()
                return
        self._seen = True
        raise KeyboardInterrupt

    def _put_off(self) -> None:
        if self._alarm is None:
            self._alarm = signal.signal(signal.SIGALRM, self.again)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

    def close(self) -> None:
        """An interrupt that was put off until now is too late."""
        if self._alarm is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm)


_AGAIN_S = 0.02
_LONGEST_IMPORT_S = 3.0
_INTERRUPTS: list[_Interrupts] = []
"""Those in force; one at most outside of tests."""


def work_begins() -> None:
    """From now on an interrupt has something to clean up, whatever is imported meanwhile."""
    for interrupts in _INTERRUPTS:
        interrupts.begun = True


def _imports(frame: FrameType | None) -> bool:
    """Whether the main thread is in the middle of an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def orderly_interrupts() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP interrupt once; the next ones leave the clean-up alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts = _Interrupts()
    _INTERRUPTS.append(interrupts)
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup stays nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupts.signalled) for number in numbers}
    hook, sys.unraisablehook = sys.unraisablehook, interrupts.swallowed
    try:
        yield
    finally:
        interrupts.close()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
        _INTERRUPTS.remove(interrupts)
