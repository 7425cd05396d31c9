"""The one error boundary: turns what went wrong into one sentence on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

OK, OBJECTIVE_MISSED, USAGE, ENVIRONMENT, INVALID, BUG, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130


def guard(action: Callable[[], int]) -> int:
    """Run `action`; errors that a person can cause become a sentence, ours a file to report."""
    with orderly_interrupts():
        try:
            return action()
        except KeyboardInterrupt:
            return tell("interrupted.", INTERRUPTED)
        except BrokenPipeError:
            # whoever read our output has enough (`| head`); nothing more can be told there
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return OK
        except Exception as error:  # noqa: BLE001 (the boundary is where everything ends)
            return tell(*explain(error))


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
    import tempfile

    path = error.filename or getattr(error, "path", None)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {path}" if path else f" (looked at {Path.cwd()} and {tempfile.gettempdir()})"
        return f"no space left on the disk{where}: free some, or choose another place with --out."
    if path is None:
        return None
    reason = (error.strerror or str(error)).lower()
    return f"{path}: {reason}; choose another path, or change its permissions."


def _bug(error: Exception) -> str:
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="servestorm-bug-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(f"{sys.argv}\n{sys.version}\n{text}")
        where = f"the traceback is in {file.name}"
    except OSError:
        where = text
    return f"a bug of ours ({type(error).__name__}: {error}). Please report it; {where}"


@contextmanager
def orderly_interrupts() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP interrupt once; the next ones leave the clean-up alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            sys.stderr.write("servestorm: still cleaning up, a moment.\n")
            return
        seen = True
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup stays nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
