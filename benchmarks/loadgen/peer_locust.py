"""Stock Locust as a person would write it: the peer that `run.py` measures. BENCH_USER is HttpUser or FastHttpUser."""

import os

from locust import FastHttpUser, HttpUser, constant_throughput, task

_BODY = b"x" * int(os.environ.get("BENCH_BODY", "0"))
_RATE = float(os.environ.get("BENCH_RATE_PER_USER", "0"))
_BASE = {"HttpUser": HttpUser, "FastHttpUser": FastHttpUser}[os.environ["BENCH_USER"]]


class Peer(_BASE):
    if _RATE:
        wait_time = constant_throughput(_RATE)

    @task
    def request(self):
        if _BODY:
            self.client.post("/", data=_BODY)
        else:
            self.client.get("/")
