"""A watch on which nothing happens for long."""

from __future__ import annotations

import json
import threading

from serving.backends.kubernetes.api_watches import ApiWatch


class Answer:
    """What the API gives: a list, or a stream that ends without a change."""

    status = 200

    def read(self):
        return json.dumps({"items": [], "metadata": {"resourceVersion": "7"}}).encode()

    def stream(self, **_):
        return iter(())

    def close(self):
        pass


def test_the_server_ends_a_watch_before_its_silence_could_be_taken_for_its_end():
    """Where nothing happens, a watch of events brings nothing: no change, and no bookmark."""
    asked, enough = [], threading.Event()

    def ask(**request):
        if request.get("watch"):
            asked.append((request["timeout_seconds"], request["_request_timeout"][1]))
            enough.set()
        return Answer()

    watch = ApiWatch(ask, lambda *_: None, "events", pause_s=0.01)
    watch.start()
    try:
        assert enough.wait(20)
    finally:
        watch.stop()
    assert all(ends_s < gives_up_s for ends_s, gives_up_s in asked)
    assert watch.fault is None
