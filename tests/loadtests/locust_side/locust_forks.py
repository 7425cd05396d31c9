"""Runs Locust in forks of a process that has imported it, which saves a second of CPU time a start.

A program: it reads requests from its standard input, a JSON object a line, and answers each with one:
`{"start": [ARGUMENT...], "cwd": ..., "env": {...}, "output": FILE}` starts `python ARGUMENT...` (`-m locust ...` or
`-c CODE ...`) and gives `{"pid": ...}`; `{"poll": PID}` gives `{"code": ...}`, null while that process lives and
minus the signal's number where one ended it, as in subprocess. It ends with its input, and all that it started with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import gevent.monkey
import locust.main
import locust.runners

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
import loadtests.locust_side.users
import loadtests.session  # noqa: F401

sys.path.pop(0)
# Gevent's own fork would start its event loop in this process.
fork, waitpid = gevent.monkey.get_original("os", ["fork", "waitpid"])


def become(request: dict) -> None:
    """Make this process what `python ARGUMENT...` would be in that folder, and run it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for target, path, flags in ((0, os.devnull, os.O_RDONLY), (1, request["output"], os.O_WRONLY | os.O_APPEND)):
        file = os.open(path, flags)
        os.dup2(file, target)
        os.close(file)
    os.dup2(1, 2)
    sys.path[0] = request["cwd"]
    kind, what, *arguments = request["start"]
    if kind == "-c":
        sys.argv = ["-c", *arguments]
        exec(what, {"__name__": "__main__"})
    else:
        sys.argv = [what, *arguments]
        sys.exit(locust.main.main())


def main() -> None:
    codes: dict[int, int | None] = {}
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "start" in request:
            sys.stdout.flush()
            pid = fork()
            if pid == 0:
                become(request)
                return
            codes[pid] = None
            answer = {"pid": pid}
        else:
            pid = request["poll"]
            if codes[pid] is None:
                done, status = waitpid(pid, os.WNOHANG)
                codes[pid] = os.waitstatus_to_exitcode(status) if done else None
            answer = {"code": codes[pid]}
        print(json.dumps(answer), flush=True)
    for pid, code in codes.items():
        if code is None:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
