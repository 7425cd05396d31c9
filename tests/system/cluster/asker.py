"""Runs in a pod, with Python's own library alone: asks one question again and again until a file appears.

`asker.py URL QUESTION STOP --threads N --rate R`; QUESTION is a JSON file with method, path, content_type and body
(base64). Each thread keeps its connection alive, as real clients do, and waits for its answer before it asks again.
A rate (questions a second of all threads together) slows it down. At the end it prints JSON: asked, answers (each
different status and body, base64, with its count), faults (seconds since the start, and what) and slowest_s.
"""

from __future__ import annotations

import argparse
import base64
import collections
import http.client
import json
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT_S = 30.0
LONGEST_S = 900.0
"""The asker ends by then even where nobody stops it."""


class Tally:
    """What every thread saw."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.began_s = time.monotonic()
        self.answers: collections.Counter[tuple[int, bytes]] = collections.Counter()
        self.faults: list[tuple[float, str]] = []
        self.slowest_s = 0.0

    def answered(self, status: int, body: bytes, took_s: float) -> None:
        """Count an answer, whatever it says."""
        with self.lock:
            self.answers[status, body] += 1
            self.slowest_s = max(self.slowest_s, took_s)

    def failed(self, error: Exception) -> None:
        """Keep a question that got no answer."""
        with self.lock:
            self.faults.append((round(time.monotonic() - self.began_s, 2), repr(error)))

    def told(self) -> str:
        """All of it."""
        answers = [
            {"status": status, "body": base64.b64encode(body).decode(), "count": count}
            for (status, body), count in self.answers.items()
        ]
        asked = sum(self.answers.values()) + len(self.faults)
        return json.dumps(
            {"asked": asked, "answers": answers, "faults": self.faults, "slowest_s": round(self.slowest_s, 3)}
        )


def ask(url: str, question: dict[str, str], tally: Tally, stop: Path, pause_s: float) -> None:
    """One thread's work."""
    netloc, body = urlsplit(url).netloc, base64.b64decode(question["body"])
    headers = {"Content-Type": question["content_type"]} if body else {}
    connection = http.client.HTTPConnection(netloc, timeout=TIMEOUT_S)
    while not stop.exists() and time.monotonic() - tally.began_s < LONGEST_S:
        asked_s = time.monotonic()
        try:
            connection.request(question["method"], question["path"], body or None, headers)
            reply = connection.getresponse()
            tally.answered(reply.status, reply.read(), time.monotonic() - asked_s)
        except (OSError, http.client.HTTPException) as error:
            tally.failed(error)
            connection.close()
            time.sleep(0.05)  # a refused connection must not make a busy loop
        time.sleep(max(0.0, pause_s - (time.monotonic() - asked_s)))
    connection.close()


def main() -> None:
    """Ask until the end, then tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("question", type=Path)
    parser.add_argument("stop", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0)
    given = parser.parse_args()
    question = json.loads(given.question.read_text())
    tally = Tally()
    pause_s = given.threads / given.rate if given.rate else 0.0
    every = [
        threading.Thread(target=ask, args=(given.url, question, tally, given.stop, pause_s))
        for _ in range(given.threads)
    ]
    for thread in every:
        thread.start()
    for thread in every:
        thread.join()
    print(tally.told())


if __name__ == "__main__":
    main()
