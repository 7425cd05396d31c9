"""A program raises its own soft limit on open files, as far as the hard one."""

import json
import subprocess
import sys

import pytest

from tests.source_tree import ROOT

ALLOW = """
import json, os, resource, sys
from serving.descriptors import allow_descriptors, open_descriptors
soft, hard, needed = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
before = open_descriptors()
more = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
print(json.dumps([allow_descriptors(needed), *resource.getrlimit(resource.RLIMIT_NOFILE), open_descriptors() - before]))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "needed", "limit"),
    [(64, 200, 100, 100), (64, 200, 64, 64), (100, 200, 50, 100), (64, 200, 5_000, 200), (64, 200, None, 200)],
)
def test_the_soft_limit_is_raised_to_what_is_needed_and_never_lowered(soft, hard, needed, limit):
    command = [sys.executable, "-c", ALLOW, json.dumps([soft, hard, needed])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == [limit, limit, hard, 5]
