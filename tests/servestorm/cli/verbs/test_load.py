"""`servestorm load` runs our locustfiles and anybody's own."""

import subprocess
import sys

import pytest

from servestorm.cli.main import main

FOREIGN = """
from locust import User, constant, events, task


class Mine(User):
    wait_time = constant(0.05)

    @task
    def nothing(self):
        self.environment.events.request.fire(
            request_type="MINE", name="nothing", response_time=1, response_length=0, exception=None, context={}
        )


@events.init.add_listener
def tell(environment, **_):
    print("bound to", environment.parsed_options.web_host, environment.parsed_options.master_bind_host)
"""


def servestorm(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "servestorm.cli.main", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_an_unmodified_locustfile_runs_with_locust_s_own_options(tmp_path):
    (tmp_path / "mine.py").write_text(FOREIGN)
    done = servestorm("load", "mine.py", "--headless", "-u", "2", "-r", "2", "-t", "2s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bound to 127.0.0.1 127.0.0.1" in done.stdout
    assert "MINE" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["steady", "bursty"])
def test_our_locustfiles_go_by_name_and_explain_their_options(name, tmp_path):
    done = servestorm("load", name, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--peak-rate" in done.stdout


def test_a_missing_locustfile_is_named(capsys):
    assert main(["load", "none.py"]) == 2
    assert "locustfile none.py does not exist" in capsys.readouterr().err
