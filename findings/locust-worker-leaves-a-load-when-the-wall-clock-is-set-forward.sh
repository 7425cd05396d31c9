#!/bin/sh
# locust 2.47.0: a worker takes the wall clock for the age of its master's last heartbeat. Where the clock is set forward by
# more than a minute (a guest that resumes, NTP's first correction), the worker quits the load within a second or two although
# heartbeats come every second: "Didn't get heartbeat from master in over 60s". The master calls that an orderly end, stops a
# load that was to last longer, and exits with 0.
# Only the worker's own time.time is shifted here (sitecustomize), not the machine's clock. Linux, Python 3.11.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check locust==2.47.0 2>/dev/null
mkdir "$dir/clock"
cat >"$dir/clock/sitecustomize.py" <<'PY'
import os, time

real = time.time
time.time = lambda: real() + (7200 if os.path.exists(os.environ["FORWARD"]) else 0)
PY
cat >"$dir/users.py" <<'PY'
from locust import User, constant, task


class Idle(User):
    wait_time = constant(1)

    @task
    def nothing(self):
        pass
PY
cat >"$dir/check.py" <<'PY'
import os, pathlib, socket, subprocess, sys, time

folder = pathlib.Path(sys.argv[1])
locust, forward = str(folder / "venv/bin/locust"), folder / "forward"
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = str(s.getsockname()[1])
common = [locust, "-f", "users.py", "--headless"]
master = subprocess.Popen(
    [*common, "--master", "--master-bind-port", port, "--expect-workers", "1", "-u", "1", "-t", "120s"],
    cwd=folder, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL,
)
clock = {**os.environ, "PYTHONPATH": str(folder / "clock"), "FORWARD": str(forward)}
worker = subprocess.Popen(
    [locust, "-f", "users.py", "--worker", "--master-port", port],
    cwd=folder, env=clock, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL,
)
time.sleep(12)
assert (master.poll(), worker.poll()) == (None, None), "both are in the load before the clock moves"
forward.touch()
moved = time.monotonic()
said = worker.communicate(timeout=60)[1]
took = time.monotonic() - moved
told = master.communicate(timeout=60)[1]
print(f"the worker left {took:.0f} s after its clock was set forward by 2 h, with exit code {worker.returncode}:")
print([line.split("/", 2)[-1] for line in said.splitlines() if "heartbeat" in line])
print(f"the master, {time.monotonic() - moved:.0f} s after, with exit code {master.returncode} of a load of 120 s:")
print([line.split("/", 2)[-1] for line in told.splitlines() if "quit" in line.lower()])
assert "Didn't get heartbeat from master in over 60s" in said, said
assert took < 30 and master.returncode == 0, (took, master.returncode, told)
PY
"$dir/venv/bin/python" "$dir/check.py" "$dir"
