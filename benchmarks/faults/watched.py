"""The memory and the threads of a server while it is loaded: after each tenth of the requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
from figures import Figure

MIB = 1 << 20


@dataclass
class Watched:
    """One server's."""

    pid: int
    rss_bytes: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def numbers(self, count: int) -> Iterator[int]:
        """0 to `count` - 1, for requests that take their number from here."""
        for number in range(count):
            if number and number % max(1, count // 10) == 0:
                self.read()
            yield number

    def read(self) -> None:
        """Read now; once more at the end."""
        process = psutil.Process(self.pid)
        self.rss_bytes.append(process.memory_info().rss)
        self.threads.append(process.num_threads())

    def figures(self) -> list[Figure]:
        """What is stated of them."""
        first, last = self.rss_bytes[0], self.rss_bytes[-1]
        return [
            Figure("memory after a tenth, MiB", first // MIB),
            Figure("memory at the end, MiB", last // MIB),
            Figure("growth, %", f"{100 * (last / first - 1):.1f}"),
            Figure("threads after a tenth, and at the end", f"{self.threads[0]}, {self.threads[-1]}"),
        ]
