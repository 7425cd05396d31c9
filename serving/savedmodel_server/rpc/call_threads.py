"""How many gRPC calls are under way at a time, counted in threads as TensorFlow Serving has them.

There a call takes a thread from its arrival to its answer, and one thread waits for the next call. A call that would
leave no thread to wait is refused.
"""

from __future__ import annotations

from threading import Lock

from serving.savedmodel_server.errors import Code, RequestError


class CallThreads:
    """Safe from any thread."""

    def __init__(self, threads: int) -> None:
        """`threads`: with the one that waits, so that one call less is under way at a time."""
        self.most = threads - 1
        self._taken = 0
        self._lock = Lock()

    def take(self) -> None:
        """For a call that has arrived; raises RequestError (RESOURCE_EXHAUSTED) where none is left."""
        with self._lock:
            if self._taken >= self.most:
                raise RequestError(Code.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
            self._taken += 1

    def free(self) -> None:
        """Give back what was taken, before the answer is sent: whoever has it may call again."""
        with self._lock:
            self._taken -= 1
