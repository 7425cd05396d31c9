"""The start of the server: what its log says of it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from serving.savedmodel_server import __main__, lifecycle
from serving.savedmodel_server.runtime.c_api import c_api
def run(server):
    print("tensorflow" in sys.modules, c_api.cache_info().currsize)
    return 0
lifecycle.Server.run = run
sys.exit(__main__.main(["--model_name=a", f"--model_base_path={sys.argv[1]}", "--port=0", "--rest_api_port=8501"]))
"""


def test_tensorflow_is_opened_within_the_time_that_the_log_gives_for_it(tmp_path):
    """`event=tensorflow_imported` counts from the begin of Server.run: nothing may open its library before."""
    (tmp_path / "1").mkdir()
    done = subprocess.run([sys.executable, "-c", CODE, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "False 0"), done.stderr
