"""What a server's log says of a model that cannot be loaded: the first worker's own exception."""

import pytest

from serving.engines.torchserve import _FATAL
from serving.failed_load import reason

HEAD = "2026-11-29T13:00:00,000 [INFO ] W-9000-m_req_1.0-stdout MODEL_LOG - "


def log(*lines):
    """As TorchServe writes what its worker writes, with a line of its own in between."""
    written = [HEAD + line for line in lines]
    return [
        *written[:2],
        "2026-11-29T13:00:00,001 [WARN ] epollEventLoopGroup-5-1 org.pytorch.serve.wlm - a",
        *written[2:],
    ]


DIED = "Backend worker process died."
TRACEBACK = "Traceback (most recent call last):"
DURING = "During handling of the above exception, another exception occurred:"
MISSING = ["ModuleNotFoundError: No module named 'humanize'", ""]
UNKNOWN = "ModuleNotFoundError: No module named 'image_classifier'"
SEARCHED = "ModuleNotFoundError: No module named 'ts.torch_handler.h_req'"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([DIED, TRACEBACK, '  File "a.py", line 1', *MISSING, DURING, "", TRACEBACK, "  x", SEARCHED], MISSING[0]),
        ([DIED, TRACEBACK, "  x", "SyntaxError: invalid syntax"], "SyntaxError: invalid syntax"),
        (
            [
                DIED,
                TRACEBACK,
                "  x",
                UNKNOWN,
                DURING,
                TRACEBACK,
                "  x",
                UNKNOWN.replace("image_classifier", "torchvision"),
            ],
            "ModuleNotFoundError: No module named 'torchvision'",
        ),
        # the second worker dies of something else, which is a consequence
        (
            [DIED, TRACEBACK, "  x", "OSError: 1", "Torch worker started.", DIED, TRACEBACK, "  x", "OSError: 2"],
            "OSError: 1",
        ),
    ],
)
def test_the_first_worker_s_exception_is_the_reason(lines, expected):
    assert reason(log(*lines), _FATAL) == expected


def test_a_death_without_an_exception_is_told_by_its_line():
    lines = [*log("Torch worker started.", "[PID]1"), "[WARN ] W-9000 - Load model failed: m, error: Worker died."]
    assert reason(lines, _FATAL) == lines[-1]


def test_a_log_without_a_fatal_line_gives_no_reason():
    assert reason(log(TRACEBACK, "  x", "ValueError: of a request"), _FATAL) is None
    assert reason(log(DIED), None) is None
