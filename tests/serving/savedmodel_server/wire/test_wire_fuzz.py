"""Framing over both ports of a real server: what the RFCs forbid is refused, and each answer is its own request's."""

import asyncio
import random

import pytest

from tests.serving.savedmodel_server.wire import http1_inputs, http2_inputs
from tests.serving.savedmodel_server.wire.wire_fuzz import over_http1, over_http2

pytestmark = pytest.mark.system


def address(target):
    host, port = target.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


def test_http1_framing_is_refused_or_answered_as_rfc_9112_demands(server):
    found = asyncio.run(over_http1(address(server.url), http1_inputs.connections(seed=1, count=600)))
    assert found.faults() == []
    assert found.outcomes["HTTP/1.1 answered, 200"] > 300
    assert found.outcomes["HTTP/1.1 refused, 400"] > 100


def test_http2_sequences_are_refused_or_answered_as_rfc_9113_demands(server):
    found = asyncio.run(over_http2(address(server.target), http2_inputs.sequences(seed=1, count=300)))
    assert found.faults() == []
    assert found.outcomes["HTTP/2 good"] > 50


@pytest.mark.parametrize("forbidden", sorted(http2_inputs.FORBIDDEN))
def test_each_frame_that_rfc_9113_forbids_is_refused(server, forbidden):
    sequence = http2_inputs.sequence(random.Random(3), forbidden)
    found = asyncio.run(over_http2(address(server.target), [sequence]))
    assert found.faults() == []
