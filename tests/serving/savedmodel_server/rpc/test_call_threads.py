"""A number of threads, one of which waits for calls."""

import pytest

from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.rpc.call_threads import CallThreads


def test_one_call_less_than_threads_is_taken_and_a_free_thread_takes_another():
    threads = CallThreads(3)
    threads.take()
    threads.take()
    with pytest.raises(RequestError) as caught:
        threads.take()
    assert (caught.value.code, caught.value.message) == (Code.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
    threads.free()
    threads.take()
    with pytest.raises(RequestError):
        threads.take()
