"""Steady load: even arrivals (or any process of --arrivals), open loop.

locust -f loadtests/steady.py --headless --host http://127.0.0.1:8501 --rate 50 --duration 30
    python loadtests/steady.py --help
"""

import sys
from pathlib import Path

# Locust puts the working directory first on the path, where another project may have a `models/` of its own.
_ROOT = str(Path(__file__).resolve().parents[1])
sys.path.insert(0, _ROOT)
try:
    from serving.interrupts import leave_on_interrupt

    leave_on_interrupt("servestorm")  # until Locust runs, which ends a load orderly
    from loadtests.locust_side.users import LoadUser, bind_to_loopback, install, start_locust
finally:
    sys.path.remove(_ROOT)

bind_to_loopback()
if __name__ != "__main__":
    install("constant")


class SteadyUser(LoadUser):
    """Stands for this process's share of the load."""


if __name__ == "__main__":
    start_locust(__file__, "constant")
