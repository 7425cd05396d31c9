"""Locust's page and report show the load second by second, and whether it is VALID."""

import csv
import io
import json
import re
import time
from contextlib import contextmanager

import pytest
import requests

from serving.ports import free_ports
from tests.loadtests.generator.loads import known_server
from tests.loadtests.locust_side.locust_processes import LocustProcess
from tests.requirements_here import lacking
from tests.servestorm.report.browser import CHROMIUM, Browser
from tests.source_tree import ROOT

BURSTS = ["--arrivals", "trace", "--trace-column", "count", "--trace-bin", 1]
RATES = [15, 60, 60, 15]


def trace(folder):
    """A trace of bursts: arrivals of each second."""
    path = folder / "bursts.csv"
    path.write_text("count\n" + "".join(f"{rate}\n" for rate in RATES))
    return ["--trace", path]


class Web:
    """Locust with its web page, for a person who presses its buttons."""

    def __init__(self, port, target, process):
        self.base, self.target, self.process = f"http://127.0.0.1:{port}", target, process

    def get(self, path):
        answer = requests.get(self.base + path, timeout=10)
        answer.raise_for_status()
        return answer

    def start(self, **form):
        form = {"user_count": 1, "spawn_rate": 1, "host": f"http://127.0.0.1:{self.target}", **form}
        assert requests.post(f"{self.base}/swarm", data=form, timeout=10).json()["success"]

    def stop(self):
        requests.post(f"{self.base}/stop", timeout=60).raise_for_status()

    def wait_for(self, phase, load=1):
        """The load's state, once it has come so far."""
        until = time.monotonic() + 120
        while True:
            assert self.process.poll() is None, self.process.stdout.read()
            shown = self.get("/servestorm/seconds").json()
            if shown["load"] >= load and shown["phase"] == phase:
                return shown
            assert time.monotonic() < until, shown
            time.sleep(0.1)


@contextmanager
def web(folder, *arguments, workers=0, server=("--fixed-ms", 2)):
    """Locust's web page (of a master, where there are workers) and a server to load; gone when the block ends."""
    port, master_port = free_ports(2)
    options = ["-m", "locust", "-f", str(ROOT / "loadtests" / "bursty.py")]
    command = [*options, "--web-port", str(port), "--engine", "http", *map(str, arguments)]
    commands = [[*options, "--worker", "--master-port", str(master_port)]] * workers
    if workers:
        command += ["--master", "--master-bind-port", str(master_port)]
    with known_server(*server) as target:
        processes = [LocustProcess(each, folder) for each in (command, *commands)]
        try:
            page = Web(port, target, processes[0])
            until = time.monotonic() + 60
            while not _answers(page, workers):
                assert processes[0].poll() is None, processes[0].stdout.read()
                assert time.monotonic() < until
                time.sleep(0.1)
            yield page
        finally:
            for process in processes:
                process.kill()
                process.communicate()


def _answers(page, workers):
    try:
        return page.get("/worker-count").json()["worker_count"] >= workers
    except requests.ConnectionError:
        return False


def aggregated(text):
    """The last row of Locust's CSV."""
    return list(csv.DictReader(io.StringIO(text)))[-1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_page_shows_each_second_of_a_burst_and_agrees_with_locust_and_the_summary(workers, tmp_path):
    arguments = [*BURSTS, *trace(tmp_path), "--duration", 4, "--rate", 30, "--warmup", 1, "--out", tmp_path / "out"]
    with web(tmp_path, *arguments, workers=workers) as page:
        page.start()
        shown = page.wait_for("ended")
        table = page.get("/servestorm/seconds.csv").text
        locusts = page.get("/stats/requests").json()["stats"][-1]
        in_csv = aggregated(page.get("/stats/requests/csv").text)
        report = page.get("/stats/report").text
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert shown["planned"] == RATES
    assert shown["seconds"]["offered"][:4] == RATES
    assert sum(shown["seconds"]["answered"]) == shown["totals"]["answered"] == summary["ok"] == sum(RATES)
    assert locusts["num_requests"] == int(in_csv["Request Count"]) == summary["scheduled"] == sum(RATES)
    assert shown["verdict"]["valid"] == summary["valid"]
    assert shown["verdict"]["reasons"] == summary["reasons"]
    assert shown["verdict"]["p50"] == summary["latency_ms"]["p50"]
    invalid = [name for name, figure in summary["figures"].items() if figure["counts"] is False]
    assert shown["verdict"]["invalid_figures"] == invalid
    assert bool(shown["verdict"]["notes"]) == bool(invalid)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [int(row["offered"]) for row in rows[:4]] == RATES
    assert f'"offered": {json.dumps(shown["seconds"]["offered"])}' in report


def test_locusts_page_has_a_tab_a_line_and_a_download_of_ours(tmp_path):
    with web(tmp_path) as page:
        index, own = page.get("/").text, page.get("/servestorm").text
        linked = re.findall(r'(?:src|href)="\./(servestorm/[^"]+)"', index + own)
        for name in linked:
            assert page.get(f"/{name}").text
        shown = page.get("/servestorm/seconds").json()
    arguments = json.loads(re.search(r"window.templateArgs = (.*)", index)[1])
    assert arguments["extended_tabs"] == [{"title": "Second by second", "key": "servestorm"}]
    assert arguments["extended_csv_files"][0]["href"] == "./servestorm/seconds.csv"
    assert {"servestorm/charts.js", "servestorm/live.js", "servestorm/seconds.css"} <= set(linked)
    assert shown["phase"] == "waiting"


def test_everything_stands_under_locusts_own_base_path(tmp_path):
    (port,) = free_ports(1)
    command = ["-m", "locust", "-f", str(ROOT / "loadtests" / "steady.py"), "--web-port", str(port)]
    process = LocustProcess([*command, "--web-base-path", "/lab"], tmp_path)
    try:
        page = Web(port, 0, process)
        until = time.monotonic() + 60
        while True:
            try:
                assert "servestorm/live.js" in page.get("/lab/").text
                break
            except requests.ConnectionError:
                assert time.monotonic() < until
                time.sleep(0.1)
        assert page.get("/lab/servestorm/seconds").json()["phase"] == "waiting"
        assert requests.get(f"{page.base}/servestorm/seconds", timeout=10).status_code == 404
    finally:
        process.kill()
        process.communicate()


def test_a_new_start_begins_anew_and_a_stop_says_why_the_load_is_not_valid(tmp_path):
    arguments = ["--arrivals", "constant", "--rate", 50, "--duration", 60, "--warmup", 1, "--out", tmp_path / "out"]
    with web(tmp_path, *arguments) as page:
        page.start()
        until = time.monotonic() + 60
        while len(page.wait_for("running")["seconds"]["answered"]) < 2:
            assert time.monotonic() < until
        page.stop()
        first = page.wait_for("ended")
        page.start(duration=1, warmup=0, rate=20)
        second = page.wait_for("ended", load=2)
        locusts = page.get("/stats/requests").json()["stats"][-1]
    assert "the load was stopped before its end" in first["verdict"]["reasons"]
    assert first["totals"]["offered"] < 3000
    assert second["seconds"]["offered"][:1] == [20]
    assert second["totals"]["answered"] == locusts["num_requests"] == 20


def test_a_stop_of_a_distributed_load_loses_no_worker_and_no_sample(tmp_path):
    arguments = ["--arrivals", "constant", "--rate", 50, "--duration", 60, "--warmup", 0, "--out", tmp_path / "out"]
    with web(tmp_path, *arguments, workers=2) as page:
        page.start()
        until = time.monotonic() + 60
        while len(page.wait_for("running")["seconds"]["answered"]) < 2:
            assert time.monotonic() < until
        page.stop()
        shown = page.wait_for("ended")
        locusts = page.get("/stats/requests").json()["stats"][-1]
    assert shown["verdict"]["reasons"][0] == "the load was stopped before its end"
    assert not any("was lost" in reason for reason in shown["verdict"]["reasons"])
    assert shown["totals"]["failed"] == 0
    assert locusts["num_requests"] == shown["totals"]["offered"] == sum(shown["seconds"]["offered"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_time_in_the_form_ends_the_schedule_and_not_the_requests_under_way(workers, tmp_path):
    arguments = ["--arrivals", "constant", "--rate", 50, "--duration", 60, "--warmup", 1, "-t", "30s"]
    with web(tmp_path, *arguments, workers=workers, server=("--fixed-ms", 200)) as page:
        page.start(run_time="3s")
        shown = page.wait_for("ended")
    assert shown["settings"]["duration_s"] == 2
    assert shown["totals"]["answered"] == shown["totals"]["offered"] == 100
    assert "the load was stopped before its end" not in shown["verdict"]["reasons"]


def test_during_the_warm_up_nothing_is_counted(tmp_path):
    arguments = ["--arrivals", "constant", "--rate", 50, "--duration", 1, "--warmup", 60]
    with web(tmp_path, *arguments) as page:
        page.start()
        shown = page.wait_for("warm-up")
        until = time.monotonic() + 60
        while shown["warmup_left_s"] > 58:
            assert time.monotonic() < until
            shown = page.wait_for("warm-up")
        locusts = page.get("/stats/requests").json()["stats"][-1]
    assert locusts["num_requests"] == 0
    assert set(shown["totals"].values()) == {0}
    assert shown["planned"] == [50]


def test_dropped_requests_are_a_reason_while_the_load_still_runs(tmp_path):
    arguments = ["--arrivals", "constant", "--rate", 50, "--duration", 60, "--warmup", 0, "--max-in-flight", 1]
    with web(tmp_path, *arguments, server=("--fixed-ms", 500)) as page:
        page.start()
        until = time.monotonic() + 60
        while not (verdict := page.wait_for("running")["verdict"])["reasons"]:
            assert time.monotonic() < until
    assert verdict["valid"] is False
    assert "dropped so far" in verdict["reasons"][0]


def test_a_load_that_cannot_start_says_why_on_the_page(tmp_path):
    with web(tmp_path) as page:
        page.start(rate=0)
        shown = page.wait_for("refused")
    assert shown["refusal"] == "--rate must be over 0, not 0."


def test_with_web_login_the_figures_ask_for_it(tmp_path):
    (port,) = free_ports(1)
    command = ["-m", "locust", "-f", str(ROOT / "loadtests" / "steady.py"), "--web-port", str(port), "--web-login"]
    process = LocustProcess(command, tmp_path)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                answers = [
                    requests.get(f"http://127.0.0.1:{port}/servestorm{path}", timeout=10, allow_redirects=False)
                    for path in ("", "/seconds", "/seconds.csv")
                ]
                break
            except requests.ConnectionError:
                assert time.monotonic() < until
                time.sleep(0.1)
    finally:
        process.kill()
        process.communicate()
    for answer in answers:
        assert answer.status_code == 302 or "login" in answer.text
        assert "waiting" not in answer.text and "ServestormCharts" not in answer.text


def test_the_html_report_says_whether_the_load_is_valid_and_shows_its_seconds(tmp_path):
    arguments = ["--headless", "--only-summary", "--engine", "http", "--html", tmp_path / "report.html"]
    arguments += [*BURSTS, *trace(tmp_path), "--duration", 4, "--rate", 30, "--warmup", 1, "--out", tmp_path / "out"]
    with known_server("--fixed-ms", 2) as port:
        command = ["-m", "locust", "-f", ROOT / "loadtests" / "bursty.py", "--host", f"http://127.0.0.1:{port}"]
        output, _ = LocustProcess([*map(str, [*command, *arguments])], tmp_path).communicate(timeout=120)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    report = (tmp_path / "report.html").read_text()
    shown = json.loads(re.search(r"new ServestormCharts\(section\)\.show\((.*)\);", report)[1])
    assert shown["verdict"]["valid"] == summary["valid"], output
    assert ("<noscript>VALID" if summary["valid"] else "<noscript>INVALID: ") in report
    assert shown["seconds"]["offered"][:4] == RATES
    rows = json.loads(re.search(r"window.templateArgs = (.*)", report)[1])["requests_statistics"]
    assert rows[-1]["num_requests"] == summary["scheduled"]


DRAWN = """
(async () => {
  for (let wait = 0; wait < 200 && !document.querySelector('.servestorm svg .answered'); wait++) {
    await new Promise(done => setTimeout(done, 50));
  }
  const bars = document.querySelector('.servestorm svg .answered');
  return {
    bars: bars ? bars.getAttribute('d').split('M').length - 1 : 0,
    badge: document.querySelector('.servestorm .badge').textContent,
    readout: document.querySelector('.servestorm .readout').textContent,
    settings: document.querySelector('.servestorm .settings').textContent,
    top: document.querySelector('.servestorm .head').getBoundingClientRect().top / window.innerHeight,
  };
})()
"""


@pytest.mark.parametrize("path", ["/servestorm", "/?tab=servestorm", "/stats/report"])
def test_a_browser_draws_each_second_and_says_whether_the_load_is_valid(path, ended_load, tmp_path):
    if CHROMIUM is None:
        lacking("chromium", "no chromium on the PATH")
    page, shown = ended_load
    with Browser(tmp_path / "profile") as browser:
        browser.open(page.base + path)
        drawn = browser.ask(DRAWN)
    seconds = len(shown["seconds"]["answered"])
    assert drawn["bars"] == sum(count > 0 for count in shown["seconds"]["answered"])
    badges = {(True, True): "VALID", (True, False): "no percentile counts"}
    assert drawn["badge"] == badges.get((shown["verdict"]["valid"], shown["verdict"]["percentile_counts"]), "INVALID")
    assert drawn["readout"].startswith(f"Second {seconds - 1} ")
    assert "trace arrivals (rate 30, " in drawn["settings"]
    assert "undefined" not in drawn["settings"]
    assert drawn["top"] < 0.5  # seen without scrolling, however many lines the verdict above it takes
    assert browser.complaints == []


@pytest.fixture(scope="module")
def ended_load(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load")
    with web(folder, *BURSTS, *trace(folder), "--duration", 4, "--rate", 30, "--warmup", 0) as page:
        page.start()
        yield page, page.wait_for("ended")
