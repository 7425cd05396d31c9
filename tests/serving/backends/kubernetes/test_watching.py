"""What watches make of a cluster's changes: events in order, whatever the streams do in between."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serving.backends.kubernetes import api_watches
from serving.backends.kubernetes.api_watches import ReleaseWatches
from serving.backends.kubernetes.clock import ClusterClock
from serving.backends.kubernetes.release_state import DELETED, Observed
from serving.deployment import EventLog
from serving.errors import DeploymentError
from tests.stand_ins.fake_cluster import (
    NAMESPACE,
    autoscaler,
    connected_to,
    event_about,
    fake_cluster,
    leaving,
    pod_at,
    pulled,
    settle,
    stamp,
    with_server,
)

SECOND_NS = 10**9
BASE = datetime(2026, 1, 2, 10, 0, 0, tzinfo=UTC)
CLOCK = ClusterClock(int(BASE.timestamp()) * SECOND_NS, 0)
"""By which BASE is 0 ns on our own clock."""


def at(second: int) -> str:
    return f"2026-01-02T10:00:{second:02}Z"


@pytest.fixture
def observed():
    return Observed("toy", EventLog(), CLOCK)


def told(observed, replica=0):
    events = [event for event in observed._events.events if event.replica == replica]
    return [(event.name, event.t_ns / SECOND_NS) for event in sorted(events, key=lambda event: event.t_ns)]


def test_a_moment_is_placed_where_it_was_seen_within_the_second_that_the_api_names(observed):
    pod = pod_at("scheduled", "toy-0", spawned=at(1), scheduled=at(3))
    observed.pod("ADDED", pod, seen_ns=int(3.4 * SECOND_NS))
    (first, spawned), (second, scheduled) = told(observed)
    assert (first, second) == ("spawned", "scheduled")
    assert spawned == pytest.approx(2.0, abs=1e-6)  # seen later than its own second
    assert scheduled == 3.4


def test_a_pull_that_is_told_late_still_comes_before_the_start_that_it_led_to(observed):
    pod = pod_at("started", "toy-0", spawned=at(1), scheduled=at(1), initialized=at(2), started=at(4))
    observed.pod("ADDED", pod, seen_ns=int(4.2 * SECOND_NS))
    pull = pulled(pod) | {"lastTimestamp": at(4)}
    observed.event("ADDED", pull, seen_ns=int(4.9 * SECOND_NS))
    assert [name for name, _ in told(observed)] == ["spawned", "scheduled", "initialized", "image_pulled", "started"]
    (detail,) = (event.detail for event in observed._events.events if event.name == "image_pulled")
    assert detail == f"already present, {at(4)}"
    observed.event("MODIFIED", pull | {"count": 2}, seen_ns=5 * SECOND_NS)
    assert len(told(observed)) == 5


def test_a_pull_that_is_told_before_the_pod_is_shown_waits_for_it(observed):
    pod = pod_at("started", "toy-0", initialized=at(2), started=at(3))
    observed.event("ADDED", pulled(pod) | {"lastTimestamp": at(2)}, seen_ns=int(2.5 * SECOND_NS))
    assert observed._events.events == []
    observed.pod("ADDED", pod, seen_ns=int(3.1 * SECOND_NS))
    names = [event.name for event in observed._events.events]
    assert names == ["spawned", "scheduled", "initialized", "image_pulled", "started"]


def test_another_containers_pull_and_another_releases_events_are_not_the_servers(observed):
    pod = pod_at("started", "toy-0")
    observed.pod("ADDED", pod, 0)
    observed.event("ADDED", event_about(pod, "Pulled", "x", fieldPath="spec.initContainers{model-0}"), 0)
    other = pod_at("started", "other-0")
    observed.event("ADDED", pulled(other), 0)
    assert "image_pulled" not in observed.replicas[0].recorded_ns
    assert [event["involvedObject"]["name"] for event in observed.cluster_events.values()] == ["toy-0"]


def test_a_number_is_never_given_again(observed):
    for name in ("toy-a", "toy-b"):
        observed.pod("ADDED", pod_at("ready", name), 0)
    observed.pod("MODIFIED", leaving(pod_at("ready", "toy-b")), 0)
    observed.pod(DELETED, leaving(pod_at("ready", "toy-b")), 0)
    observed.pod("ADDED", pod_at("spawned", "toy-c"), 0)
    assert [(one.index, one.name, one.active) for one in observed.replicas] == [
        (0, "toy-a", True),
        (1, "toy-b", False),
        (2, "toy-c", True),
    ]
    assert [name for name, _ in told(observed, 1)][-2:] == ["terminating", "stopped"]


def test_what_the_autoscaler_decides_is_an_event_and_what_it_found_is_none(observed):
    observed.scaler("ADDED", autoscaler("toy", 0, active=False), 0)
    observed.scaler("MODIFIED", autoscaler("toy", 1), 0)
    observed.scaler("MODIFIED", autoscaler("toy", 3, scaled=at(7)), int(7.5 * SECOND_NS))
    observed.scaler("MODIFIED", autoscaler("toy", 3, scaled=at(7)), int(9.5 * SECOND_NS))
    observed.scaler("MODIFIED", autoscaler("toy", 2, scaled=at(20)), int(20.1 * SECOND_NS))
    events = [(event.name, event.detail, event.t_ns / SECOND_NS) for event in observed._events.events]
    assert events == [("hpa_scaled", "1 -> 3", 7.5), ("hpa_scaled", "3 -> 2", 20.1)]


def test_a_node_that_stops_answering_is_known_from_what_is_told_about_its_pod(observed):
    pod = pod_at("ready", "toy-0")
    observed.pod("ADDED", pod, 0)
    observed.event("ADDED", event_about(pod, "NodeNotReady", "Node is not ready"), 0)
    observed.pod("MODIFIED", pod, 0)  # the pod's own status says nothing of it for minutes
    assert observed.replicas[0].lost and observed.replicas[0].failed


def test_the_last_warning_and_the_last_refusal_are_found(observed):
    pod = pod_at("scheduled", "toy-0")
    observed.pod("ADDED", pod, 0)
    replicas = {"metadata": {"name": "toy-5d", "uid": "rs"}}
    for second, message in ((1, "first"), (2, "second")):
        observed.event("ADDED", event_about(pod, "FailedMount", message) | {"lastTimestamp": at(second)}, 0)
    observed.event("ADDED", event_about(replicas, "FailedCreate", "exceeded quota", kind="ReplicaSet"), 0)
    observed.event("ADDED", event_about(replicas, "SuccessfulCreate", "made", kind="ReplicaSet"), 0)
    assert observed.warning(observed.replicas[0]) == "second"
    assert observed.refusal() == "exceeded quota"


@pytest.fixture
def fake():
    with fake_cluster() as cluster:
        yield cluster


@pytest.fixture
def connected(fake, tmp_path, monkeypatch):
    return connected_to(fake, tmp_path, monkeypatch)


@pytest.fixture
def watched(connected):
    """What watches of a release show, once they run."""
    observed = Observed("toy", EventLog(), connected.clock)
    watches = ReleaseWatches(connected, NAMESPACE, "toy", observed, autoscaled=True)
    yield observed, watches
    watches.stop()


def states(observed):
    return {one.name: ("gone" if one.gone else "ready" if one.ready else "there") for one in observed.replicas}


def test_watches_show_what_is_there_and_what_comes(fake, watched):
    observed, watches = watched
    fake.put("pods", pod_at("started", "toy-0"))
    watches.start()
    assert states(observed) == {"toy-0": "there"}
    fake.put("pods", pod_at("ready", "toy-0"))
    fake.put("events", pulled(pod_at("ready", "toy-0")))
    fake.put("autoscalers", autoscaler("toy", 2))
    settle(lambda: states(observed) == {"toy-0": "ready"} and observed.autoscaler and observed.cluster_events)
    fake.drop("pods", "toy-0")
    settle(lambda: states(observed) == {"toy-0": "gone"})


def test_a_broken_stream_is_resumed_where_it_broke(fake, watched):
    observed, watches = watched
    watches.start()
    fake.wait_streams(3)
    for number in range(3):
        fake.cut()
        fake.put("pods", pod_at("ready", f"toy-{number}"))  # while nobody listens
        settle(lambda number=number: len(observed.replicas) == number + 1)
    names = [event.name for event in observed._events.events]
    assert names.count("spawned") == names.count("ready") == 3
    fake.cut()
    last = int(fake.objects["pods"]["toy-2"]["metadata"]["resourceVersion"])
    settle(lambda: fake.since["pods"] >= last)
    watches.check()


def test_where_the_server_has_forgotten_everything_is_listed_again_and_what_is_gone_is_told(fake, watched):
    observed, watches = watched
    for name in ("toy-0", "toy-1"):
        fake.put("pods", pod_at("ready", name))
    watches.start()
    fake.wait_streams(3)
    fake.refused["pods"] = 500  # so that nobody looks before everything has happened
    fake.cut()
    settle(lambda: watches._watches["pods"].fault is not None)
    fake.drop("pods", "toy-0")
    fake.put("pods", pod_at("ready", "toy-2"))
    fake.forget()
    del fake.refused["pods"]
    settle(lambda: states(observed) == {"toy-0": "gone", "toy-1": "ready", "toy-2": "ready"})
    names = [event.name for event in observed._events.events]
    assert names.count("spawned") == 3 and names.count("stopped") == 1


def test_an_account_that_may_not_watch_is_told_which_verb_it_lacks(fake, watched):
    _, watches = watched
    fake.refused["autoscalers"] = 403
    with pytest.raises(DeploymentError, match=r"may not watch horizontalpodautoscalers .*cannot watch.*role\.yaml"):
        watches.start()


def test_an_api_that_has_gone_for_long_is_told_and_one_that_hiccups_is_not(fake, watched, monkeypatch):
    _, watches = watched
    watches.start()
    fake.wait_streams(3)
    fake.refused.update({"pods": 503, "events": 503, "autoscalers": 503})
    fake.cut()
    pods = watches._watches["pods"]
    settle(lambda: pods.fault is not None)
    watches.check()
    monkeypatch.setattr(api_watches, "SILENT_S", 0.0)
    with pytest.raises(DeploymentError, match="watch pods"):
        watches.check()
    fake.refused.clear()
    settle(lambda: all(watch.fault is None for watch in watches._watches.values()))
    watches.check()


def test_a_bug_in_whoever_is_told_is_not_swallowed(fake, watched):
    _, watches = watched
    fake.put("pods", {"metadata": {"name": "toy-0", "uid": "u", "creationTimestamp": stamp()}, "status": None})
    with pytest.raises(AttributeError):
        watches.start()


def test_a_restarted_server_has_failed_for_good(fake, watched):
    observed, watches = watched
    watches.start()
    pod = pod_at("ready", "toy-0")
    fake.put("pods", pod)
    fake.put("pods", with_server(pod, restartCount=1, lastState={"terminated": {"exitCode": 3}}))
    settle(lambda: observed.replicas and observed.replicas[0].failed)
