"""The generator: fires requests at their scheduled times, however long the server takes, and records every one.

It runs on an operating-system thread of its own with its own epoll loop; Locust's gevent hub only fetches what was
recorded. Open loop: an arrival is sent when it is due, or recorded as dropped where `max_in_flight` are under way.
Closed loop: a fixed number of requests is kept under way, each sent when the one before it ended, or RETRY_NS later
where that one failed.
"""

from __future__ import annotations

import gc
import resource
import struct
import sys
from bisect import bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Final

from loadtests.errors import LoadEnvironmentError
from loadtests.generator import jobs
from loadtests.generator.connections import Connection
from loadtests.generator.descriptors import spare_descriptors
from loadtests.generator.endpoint_pool import EndpointPool
from loadtests.generator.endpoints_file import Made
from loadtests.generator.jobs import Job
from loadtests.generator.load import RETRY_NS, ROW, LoadSpec, Target
from loadtests.generator.lookahead import Lookahead
from loadtests.generator.sockets_and_timers import (
    EPOLLET,
    EPOLLIN,
    Glance,
    Timer,
    native_epoll,
    sharpen_timers,
    start_native_thread,
)
from loadtests.generator.wake_up import WakeUp, prepare_ahead_ns

# A struct packs a row in a third of the time that array("q").extend() takes.
_ROW_STRUCT: Final = struct.Struct(f"{len(ROW)}q")
_PACK_ROW: Final = _ROW_STRUCT.pack_into
_ROW_BYTES: Final = _ROW_STRUCT.size
_OK: Final = jobs.OK
_CHUNK_BYTES: Final = _ROW_BYTES * 4096
_TICK_NS: Final = 50_000_000
_LEAD_NS: Final = 20_000_000
_POLL_S: Final = 0.02
# Without a request under way and with none due so soon, what is looked at in every tick is looked at less often.
_WAIT_NS: Final = 200_000_000
_WAITING_POLL_S: Final = 0.1
_MOST_REASONS: Final = 20
"""Sentences about failures that are counted one by one; each reply may say something else."""
_SWITCH_INTERVAL_S: Final = 0.0002


class Generator:
    """One load on one thread. start() returns at once; `chunks` fills while it runs; `finished` turns True.

    It starts at `start_at_ns` of the monotonic clock, or when it is ready (0). Where it is ready later than that, a
    `punctual` one ends with a LoadEnvironmentError, and another one begins with the arrivals that are overdue.
    """

    def __init__(self, target: Target, load: LoadSpec, start_at_ns: int = 0, *, punctual: bool = False) -> None:
        self.chunks: deque[bytes] = deque()
        """Samples not yet fetched, oldest first; popleft() is safe from another thread."""
        self.reasons: Counter[str] = Counter()
        """Error names and their counts, warm-up left out."""
        self.finished = False
        self.crash: BaseException | None = None
        self.start_ns = 0
        self.gave_up_ns = 0
        """When the load was given up (see LoadSpec.give_up_in_flight); 0 where it was not."""
        self.cpu_s = 0.0
        """CPU seconds of the generator's own thread."""
        self.in_flight = 0
        self.fired = 0
        self._target = target
        self._load = load
        self._start_at_ns, self._punctual = start_at_ns, punctual
        self._pool = EndpointPool(self, target, load.connections, spare_descriptors())
        self._endpoints = self._pool.endpoints
        self._relistings: deque[tuple[Sequence[int], Sequence[Made]]] = deque()
        self._relisted = False
        self._rows = bytearray(_CHUNK_BYTES)
        self._filled = 0
        self._pending: deque[Job] = deque()
        self._restarts: list[int] = []
        self._sizes = [len(request.head) + len(request.data) for request in target.requests[0]]
        self._following_image = [*range(1, len(self._sizes)), 0]
        self._timeout_ns = load.timeout_ns
        self._measured_begins, self._measured_ends = load.measured.begin_ns.tolist(), load.measured.end_ns.tolist()
        self._most_in_flight = min(load.max_in_flight, load.give_up_in_flight or load.max_in_flight)
        gap_ns = load.active.within_ns(0, load.duration_ns) / max(load.schedule.expected, 1)
        self._wake_up = WakeUp(gap_ns)
        self._spin_ns = self._wake_up.lead_ns
        self._prepare_ns = min(prepare_ahead_ns(gap_ns), self._spin_ns)
        self._closed_until_ns = 0
        self._next_image = 0
        self._stopping = False
        self._running = False
        self._tend_soon = False
        self._closing_ns = 0
        self._poll_s = _POLL_S
        self._due: list[int] = []
        self._due_requests: Sequence[int] = ()
        """Prepared request of each of `_due`, where a trace says it."""
        # arrivals of the schedule up to the last one of `_due`
        self._due_at = self._taken = 0
        self._lookahead = Lookahead(load.schedule)
        self._next_due_ns = sys.maxsize
        self._handlers: dict[int, Callable[[int], None]] = {}
        self.check = target.check

    def start(self) -> None:
        """Begin the load on a native thread."""
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._epoll = native_epoll()
        self._timer = Timer()
        self._anything_ready = Glance(self._epoll.fileno())
        gc.collect()
        gc.freeze()
        start_native_thread(self._main, ())

    def stop(self) -> None:
        """Ask for no more requests; what is under way may still end within its time limit."""
        self._stopping = True
        self._closed_until_ns = 0

    def plan_ahead(self) -> None:
        """Compute arrivals before they are due; call it several times a second from another thread."""
        self._lookahead.refill()

    def relist(self, listed: Sequence[int], added: Sequence[Made] = ()) -> None:
        """From the next tick on send to these endpoints (by index) only; `added` get the next free indexes.

        Requests that are under way at others end as they may. Safe from another thread.
        """
        self._relistings.append((listed, added))

    # What connections call.

    def watch(self, fd: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call handler(mask) when `fd` is ready."""
        self._handlers[fd] = handler
        self._epoll.register(fd, mask)

    def rewatch(self, fd: int, mask: int) -> None:
        """Change what is waited for."""
        self._epoll.modify(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def ended(
        self,
        job: Job,
        done_ns: int,
        outcome: int,
        status: int,
        sent: int,
        received: int,
        correct: int,
        reason: str,
    ) -> None:
        """Record a job that is over; in a closed loop, make room for the next."""
        self.in_flight -= 1
        self._endpoints[job.endpoint].in_flight -= 1
        if reason:
            done_ns = max(done_ns, job.scheduled_ns)  # a request is prepared before it is due, and may fail then
            many = len(self.reasons) >= _MOST_REASONS and reason not in self.reasons
            self._count_failure(jobs.OUTCOMES[outcome] if many else reason, job.scheduled_ns)
            if self._load.closed_loop:
                # A server that refuses at once must not be asked in a tight circle.
                self._restarts.append(done_ns + RETRY_NS)
        self._record(job, done_ns, outcome, status, sent, received, correct)

    def turn(self, connection: Connection, job: Job, done_ns: int, received: int, correct: int) -> Job | None:
        """Record a right reply; in a closed loop the same job goes on as the next, on the same connection."""
        image = job.image
        # What _record does, without the call: this is the path that decides how many requests a core can make.
        # fmt: off
        _PACK_ROW(
            self._rows, self._filled, job.scheduled_ns, job.sent_ns, job.first_ns, done_ns, _OK, 200,
            self._sizes[image], received, job.endpoint, image, correct,
        )
        # fmt: on
        self._filled += _ROW_BYTES
        if self._filled == _CHUNK_BYTES:
            self._hand_over()
        if done_ns < self._closed_until_ns:
            self.fired += 1
            job.image = self._next_image
            self._next_image = self._following_image[job.image]
            job.scheduled_ns = now_ns = monotonic_ns()
            job.deadline_ns = now_ns + self._timeout_ns
            return job
        self.in_flight -= 1
        self._endpoints[job.endpoint].in_flight -= 1
        self.available(connection)
        return None

    def available(self, connection: Connection) -> None:
        """Give a free connection the oldest waiting job, or the next of a closed loop, or keep it."""
        if self._relisted:
            self._free_among_changing(connection)
            return
        if self._load.closed_loop:
            while self._wants_more() and connection.has_room():
                now_ns = monotonic_ns()
                self._assign(connection, self._new_job(now_ns, now_ns))
        elif self._pending:
            while self._pending and connection.has_room():
                self._assign(connection, self._pending.popleft(), counted=True)
        self._pool.keep(connection)

    def lost(self, connection: Connection) -> None:
        """A connection closed; let a waiting job open another."""
        self._pool.lost(connection)
        self._tend_soon = bool(self._pending)

    def left(self, connection: Connection) -> None:
        """A connection takes no more jobs; let a waiting one open another."""
        self._pool.leave(connection)
        self._tend_soon = bool(self._pending)

    def may_try_more(self) -> bool:
        """True while descriptors are left for another socket of a connection."""
        return self._pool.has_spare_descriptor()

    def sockets_beside(self, change: int) -> None:
        """Count the sockets that connections have beside their first ones."""
        self._pool.sockets_beside += change

    # The thread.

    def _main(self) -> None:
        sharpen_timers()
        started = resource.getrusage(resource.RUSAGE_THREAD)
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - handed to the hub, which reports it
            self.crash = error
        finally:
            self._hand_over()
            ended = resource.getrusage(resource.RUSAGE_THREAD)
            self.cpu_s = ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime
            self._timer.close()
            self._epoll.close()
            self.finished = True

    def _run(self) -> None:
        # Edge-triggered: once it has woken the thread, it does not make the epoll look ready.
        self._epoll.register(self._timer.fd, EPOLLIN | EPOLLET)
        self._handlers[self._timer.fd] = self._ignore
        self._preconnect()
        if self._punctual and (late_ns := monotonic_ns() - self._start_at_ns) > 0:
            raise LoadEnvironmentError(
                f"the generator was ready {late_ns / 1e9:.2g} s after the moment of --start-file: give a later one."
            )
        # A moment that has passed is kept: workers share it, and a late one must show its lag.
        self.start_ns = self._start_at_ns or monotonic_ns() + _LEAD_NS
        self._running = True
        self._next_block()
        if self._load.closed_loop:
            self._closed_until_ns = self.start_ns + self._load.duration_ns
            self._restarts = [self.start_ns] * self._load.closed_loop
        next_tick_ns = 0
        while not self._is_finished():
            now_ns = self._handle_ready(self._poll_s)
            if now_ns >= self._next_due_ns - self._spin_ns:
                now_ns = self._fire_due(now_ns)
            if now_ns >= next_tick_ns:
                next_tick_ns = now_ns + _TICK_NS
                self._tick(now_ns)
            elif self._restarts:
                self._restart(now_ns)
            elif self._tend_soon:
                self._tend_pending(now_ns)
        for connection in self._pool.opened():
            connection.close()

    def _handle_ready(self, limit_s: float) -> int:
        """Wait for something to be ready, for `limit_s` at most, and handle it; the time afterwards."""
        handlers = self._handlers
        for fd, mask in self._epoll.poll(limit_s):
            handler = handlers.get(fd)
            if handler is not None:
                handler(mask)
        return monotonic_ns()

    def _ignore(self, _mask: int) -> None:
        """The timer's descriptor: being awake is all that is wanted."""

    def _is_finished(self) -> bool:
        return bool(self._closing_ns) and self.in_flight == 0 and not self._pending

    def _preconnect(self) -> None:
        """Open the first connections before the clock starts; who refuses is found again by the first request."""
        self._pool.connect_first(min(self._load.connections, self._load.closed_loop or 1))
        limit_ns = monotonic_ns() + min(self._load.timeout_ns, 3_000_000_000)
        while monotonic_ns() < limit_ns and any(not connection.connected for connection in self._pool.opened()):
            now_ns = self._handle_ready(_POLL_S)
            for connection in self._pool.opened():
                connection.try_more(now_ns)

    def _next_block(self) -> None:
        self._due = self._lookahead.take()
        if self._load.requests is not None:
            taken = self._taken + len(self._due)
            self._due_requests = self._load.requests[self._taken : taken].tolist()
            self._taken = taken
        self._due_at = 0
        self._arm()

    def _arm(self) -> None:
        if self._due:
            self._next_due_ns = self.start_ns + self._due[self._due_at]
            self._timer.arm(self._next_due_ns - self._spin_ns)
        else:
            self._next_due_ns = sys.maxsize
            self._timer.disarm()

    def _fire_due(self, now_ns: int) -> int:
        """Send what is due, and what becomes due within the spin; the time afterwards."""
        if self._wake_up.follows:
            self._wake_up.woke(self._next_due_ns - self._prepare_ns - now_ns)
        while now_ns >= self._next_due_ns - self._spin_ns:
            while now_ns < self._next_due_ns - self._prepare_ns:
                now_ns = self._handle_ready(0) if self._anything_ready() else monotonic_ns()
            if self._due_requests:
                self._next_image = self._due_requests[self._due_at]
            self._fire(self._next_due_ns)
            self._due_at += 1
            if self._due_at < len(self._due):
                self._next_due_ns = self.start_ns + self._due[self._due_at]
            else:
                self._next_block()
            now_ns = monotonic_ns()
        self._spin_ns = self._wake_up.lead_ns
        if self._due:
            self._timer.arm(self._next_due_ns - self._spin_ns)
        return now_ns

    def _fire(self, scheduled_ns: int) -> None:
        if self.in_flight >= self._most_in_flight:
            self._refrain(scheduled_ns)
            return
        job = self._new_job(scheduled_ns, monotonic_ns())
        endpoint = self._pool.choose()
        connection = self._pool.find_room(endpoint)
        if connection is not None:
            self._assign(connection, job)
            return
        self.in_flight += 1
        job.endpoint = endpoint.index
        endpoint.in_flight += 1
        if self._pool.refusal:
            self._turn_away(job)
        else:
            self._pending.append(job)

    def _turn_away(self, job: Job) -> None:
        """End a job for which no socket can be opened: a failure of its own, which must not look like a slow server."""
        self.ended(job, monotonic_ns(), jobs.CONNECTION_ERROR, -1, 0, 0, jobs.UNCHECKED, self._pool.refusal)

    def _refrain(self, scheduled_ns: int) -> None:
        """Too many requests are under way for this arrival: give up the rest of the schedule, or drop this one."""
        if self._load.give_up_in_flight:
            self.gave_up_ns = monotonic_ns()
            self._lookahead.end()
            self._due_at = len(self._due)
            return
        job = self._new_job(scheduled_ns, monotonic_ns())
        self._count_failure("dropped (too many in flight)", scheduled_ns)
        self._record(job, jobs.NEVER, jobs.DROPPED, -1, 0, 0, jobs.UNCHECKED)

    def _new_job(self, scheduled_ns: int, now_ns: int) -> Job:
        image = self._next_image
        self._next_image = self._following_image[image]
        self.fired += 1
        return Job(scheduled_ns, now_ns + self._timeout_ns, image)

    def _assign(self, connection: Connection, job: Job, *, counted: bool = False) -> None:
        if counted:
            self._endpoints[job.endpoint].in_flight -= 1
        else:
            self.in_flight += 1
        self._endpoints[connection.endpoint].in_flight += 1
        connection.assign(job)

    def _wants_more(self) -> bool:
        """True while a closed loop is short of requests."""
        return self.in_flight + len(self._restarts) < self._load.closed_loop and not self._over(monotonic_ns())

    def _over(self, now_ns: int) -> bool:
        return self._stopping or not self._running or now_ns >= self.start_ns + self._load.duration_ns

    def _restart(self, now_ns: int) -> None:
        """Closed loop: start what the beginning or a failure left to start."""
        while self._restarts and self._restarts[0] <= now_ns and not self._over(now_ns):
            del self._restarts[0]
            endpoint = self._pool.choose()
            job = self._new_job(now_ns, now_ns)
            connection = self._pool.find_room(endpoint)
            if connection is not None:
                self._assign(connection, job)
            elif self._pool.refusal:
                self.in_flight += 1
                job.endpoint = endpoint.index
                endpoint.in_flight += 1
                self._turn_away(job)
            else:
                self._restarts.append(now_ns + RETRY_NS)
                return

    def _tick(self, now_ns: int) -> None:
        while self._relistings:
            self._relist(*self._relistings.popleft())
        self._restart(now_ns)
        for connection in self._pool.opened():
            if not connection.connected:
                connection.try_more(now_ns)
            connection.expire(now_ns)
        self._tend_pending(now_ns)
        self._hand_over()
        if not self._closing_ns and self._is_last(now_ns):
            self._closing_ns = now_ns
            self._due, self._next_due_ns, self._restarts = [], sys.maxsize, []
        # Two generators that take turns share a core: the one that waits must leave it alone.
        waits = not (self.in_flight or self._load.closed_loop) and self._next_due_ns - now_ns > _WAIT_NS
        self._poll_s = _WAITING_POLL_S if waits else _POLL_S

    def _is_last(self, now_ns: int) -> bool:
        return self._over(now_ns) if self._load.closed_loop or self._stopping else not self._due

    def _tend_pending(self, now_ns: int) -> None:
        self._tend_soon = False
        while self._pending and self._pending[0].deadline_ns <= now_ns:
            self.ended(
                self._pending.popleft(),
                now_ns,
                jobs.TIMEOUT,
                -1,
                0,
                0,
                jobs.UNCHECKED,
                "timeout waiting to send",
            )
        for endpoint in self._pool.listed:
            while self._pending and (connection := self._pool.find_room(endpoint)) is not None:
                self._assign(connection, self._pending.popleft(), counted=True)

    def _relist(self, listed: Sequence[int], added: Sequence[Made]) -> None:
        # A closed loop's requests stay with their connections as long as nothing changes; now each is dealt anew.
        self._relisted, self._closed_until_ns = True, 0
        self._pool.relist(listed, added)

    def _free_among_changing(self, connection: Connection) -> None:
        """`available`, once endpoints come and go: a closed loop chooses again, and who is not listed gets nothing."""
        endpoint = self._endpoints[connection.endpoint]
        if self._load.closed_loop:
            while self._wants_more():
                insort(self._restarts, monotonic_ns())
        while endpoint.listed and self._pending and connection.has_room():
            self._assign(connection, self._pending.popleft(), counted=True)
        if endpoint.listed:
            self._pool.keep(connection)
        elif connection.idle():
            connection.close()

    def _record(
        self, job: Job, done_ns: int, outcome: int, status: int, sent: int, received: int, correct: int
    ) -> None:
        # fmt: off
        _PACK_ROW(
            self._rows, self._filled, job.scheduled_ns, job.sent_ns, job.first_ns, done_ns, outcome, status, sent,
            received, job.endpoint, job.image, correct,
        )
        # fmt: on
        self._filled += _ROW_BYTES
        if self._filled == _CHUNK_BYTES:
            self._hand_over()

    def _count_failure(self, reason: str, due_ns: int) -> None:
        after_ns = due_ns - self.start_ns
        number = bisect_right(self._measured_begins, after_ns) - 1
        if self.start_ns and number >= 0 and after_ns < self._measured_ends[number]:
            self.reasons[reason] += 1

    def _hand_over(self) -> None:
        if self._filled:
            self.chunks.append(bytes(memoryview(self._rows)[: self._filled]))
            self._filled = 0
