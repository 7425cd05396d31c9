"""An arrival is made ready before it is due and leaves at its moment; replies are read until then."""

import socket
from contextlib import closing

import pytest

from loadtests.generator import connection_grpc, connection_http1, generator, sockets_and_timers
from loadtests.generator.addresses import resolve
from loadtests.generator.connections import PreparedRequest
from loadtests.generator.generator import Generator
from loadtests.generator.load import Target
from loadtests.generator.sockets_and_timers import EPOLLET, EPOLLIN, EPOLLOUT
from tests.loadtests.generator.loads import accept_all, load

MS, US = 1_000_000, 1000
CHOOSING_NS = 18 * US
"""What a core that has just slept takes to choose an image and a connection."""


class Clock:
    """A monotonic clock that every look at it moves by 0.1 us."""

    def __init__(self):
        self.ns = 1_000 * MS

    def __call__(self):
        self.ns += 100
        return self.ns


class Readiness:
    """An epoll whose poll takes a microsecond; `ready` maps the moment at which a descriptor is ready to it."""

    def __init__(self, clock):
        self.clock, self.ready = clock, {}

    def register(self, *_which):
        pass

    unregister = register

    def due(self):
        self.clock.ns += US
        return [moment for moment in self.ready if moment <= self.clock.ns]

    def poll(self, _limit_s):
        return [(self.ready.pop(moment), EPOLLIN) for moment in self.due()]


class NoTimer:
    fd = -1

    def arm(self, *_at_ns):
        pass

    disarm = arm


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (generator, sockets_and_timers, connection_grpc, connection_http1):
        monkeypatch.setattr(module, "monotonic_ns", clock)
    return clock


@pytest.fixture(params=[False, True], ids=["rest", "grpc"])
def waiting(request, clock, monkeypatch):
    """A generator with one connection, whose first arrival is due in 10 ms, and that connection."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = resolve("127.0.0.1", listener.getsockname()[1], None)
        target = Target([address], [[PreparedRequest(b"head", b"data")]], request.param, accept_all)
        one = Generator(target, load([10 * MS, 30 * MS]))
        one._epoll, one._timer, one.start_ns, one._running = Readiness(clock), NoTimer(), clock.ns, True
        one._anything_ready = one._epoll.due
        choose = one._pool.choose

        def slow_choice():
            clock.ns += CHOOSING_NS
            return choose()

        monkeypatch.setattr(one._pool, "choose", slow_choice)
        one._next_block()
        connection = one._pool.connect(one._pool.endpoints[0])
        (attempt,) = connection._tries.values()
        connection._on_connecting(attempt, EPOLLOUT)
        yield one, connection
        connection.close()


def job_of(connection):
    return next(iter(connection._calls.values())) if hasattr(connection, "_calls") else connection._job


def test_an_arrival_leaves_at_its_moment_though_it_takes_longer_to_make_it_ready(waiting, clock):
    one, connection = waiting
    due_ns = one.start_ns + 10 * MS
    clock.ns = due_ns - 190 * US
    one._fire_due(clock.ns)
    job = job_of(connection)
    assert (job.scheduled_ns, one.fired) == (due_ns, 1)
    assert 0 <= job.sent_ns - due_ns < US


def test_an_arrival_that_is_overdue_leaves_at_once(waiting, clock):
    one, connection = waiting
    due_ns = one.start_ns + 10 * MS
    clock.ns = due_ns + 2 * MS
    one._fire_due(clock.ns)
    assert 0 <= job_of(connection).sent_ns - due_ns - 2 * MS < CHOOSING_NS + 2 * US


def test_a_reply_that_comes_shortly_before_an_arrival_is_due_is_read_before_it(waiting, clock):
    one, _ = waiting
    due_ns = one.start_ns + 10 * MS
    read_ns = []
    one.watch(99, EPOLLIN, lambda _mask: read_ns.append(clock.ns))
    one._epoll.ready[due_ns - 150 * US] = 99
    clock.ns = due_ns - 190 * US
    one._fire_due(clock.ns)
    assert len(read_ns) == 1 and 0 <= read_ns[0] - (due_ns - 150 * US) < 3 * US


def test_no_arrival_is_made_ready_sooner_than_the_wait_awake_begins(clock):
    """At high rates the generator may stay awake for little of each gap, and must not use more."""
    target = Target([resolve("127.0.0.1", 9, None)], [[PreparedRequest(b"head")]], False, accept_all)
    slow, fast = (Generator(target, load(range(gap_ns, 1000 * gap_ns, gap_ns))) for gap_ns in (10 * MS, 50 * US))
    assert 0 < slow._prepare_ns < slow._spin_ns
    assert fast._prepare_ns == fast._spin_ns <= 10 * US


def test_a_glance_sees_what_is_ready_and_not_a_timer_that_has_been_reported():
    """Were a timer that has fired ready for ever, every glance would be followed by a poll that gives the lock away."""
    with closing(sockets_and_timers.native_epoll()) as epoll, closing(sockets_and_timers.Timer()) as timer:
        anything_ready = sockets_and_timers.Glance(epoll.fileno())
        epoll.register(timer.fd, EPOLLIN | EPOLLET)
        for _ in range(2):
            assert not anything_ready()
            timer.arm(1)
            assert epoll.poll(30) == [(timer.fd, EPOLLIN)]
        assert not anything_ready()
        one, other = socket.socketpair()
        with one, other:
            epoll.register(one.fileno(), EPOLLIN)
            assert not anything_ready()
            other.send(b"x")
            assert anything_ready() and anything_ready()


def test_waiting_ends_at_the_moment_or_at_once_where_that_has_passed(clock):
    moment_ns = clock.ns + 50 * US
    assert 0 <= sockets_and_timers.wait_until(moment_ns) - moment_ns <= 100
    passed_ns = clock.ns
    assert sockets_and_timers.wait_until(passed_ns - MS) - passed_ns == 100
