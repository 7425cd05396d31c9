"""The load second by second in Locust's web page and HTML report, through Locust's extension points.

`/servestorm` is a page of its own; the same charts are a tab of Locust's page, with a line above it that says whether
the load is VALID. Behind both are `/servestorm/seconds` (JSON) and `/servestorm/seconds.csv`.
"""

from __future__ import annotations

import html
import json
import time
from functools import cache
from pathlib import Path
from typing import Any, Final

from flask import Blueprint, Response, request

from loadtests.locust_side.live_load import ENDED, LiveLoad

TAB: Final = {"title": "Second by second", "key": "servestorm"}
_FOLDER: Final = Path(__file__).parent
_VERDICTS: Final = {True: "VALID", False: "INVALID"}
_TYPES: Final = {".css": "text/css", ".js": "text/javascript"}
_IN_LOCUSTS_PAGE: Final = """\
<link rel="stylesheet" href="./servestorm/seconds.css">
<script src="./servestorm/charts.js" defer></script>
<script src="./servestorm/live.js" defer></script>
"""


def attach(environment: Any, live: LiveLoad) -> None:
    """Put the load into the web page and the HTML report of a Locust that has one; called on Locust's `init`."""
    _extend_report_file(environment, live)
    web_ui = environment.web_ui
    if web_ui is None:
        return
    base = environment.parsed_options.web_base_path or ""
    web_ui.app.register_blueprint(_blueprint(web_ui, live), url_prefix=base or None)
    web_ui.template_args = {
        **web_ui.template_args,
        "extended_tabs": [*web_ui.template_args.get("extended_tabs", []), TAB],
        "extended_csv_files": [
            *web_ui.template_args.get("extended_csv_files", []),
            {"href": "./servestorm/seconds.csv", "title": "Download the load second by second, CSV"},
        ],
    }

    def extend(response: Response) -> Response:
        if request.path == f"{base}/" and response.mimetype == "text/html" and response.status_code == 200:
            response.set_data(response.get_data(as_text=True).replace("</head>", f"{_IN_LOCUSTS_PAGE}</head>", 1))
        elif request.path == f"{base}/stats/report" and response.status_code == 200:
            response.set_data(with_section(response.get_data(as_text=True), live))
        return response

    web_ui.app.after_request(extend)


def _blueprint(web_ui: Any, live: LiveLoad) -> Blueprint:
    """The routes; with --web-login those with figures ask for it."""
    pages = Blueprint("servestorm", __name__)

    def page() -> str:
        return _file("index.html")

    def seconds() -> Response:
        begin = request.args.get("begin", 0, int)
        snapshot = live.snapshot(max(begin, 0), request.args.get("load", 0, int))
        return Response(json.dumps(snapshot), mimetype="application/json", headers={"Cache-Control": "no-store"})

    def table() -> Response:
        named = {"Content-Disposition": "attachment; filename=seconds.csv"}
        return Response(live.csv(), mimetype="text/csv", headers=named)

    def asset(name: str) -> Response:
        return Response(_file(name), mimetype=_TYPES[Path(name).suffix])

    for rule, view in (("", page), ("/seconds", seconds), ("/seconds.csv", table)):
        pages.add_url_rule(f"/servestorm{rule}", view.__name__, web_ui.auth_required_if_enabled(view))
    for name in ("seconds.css", "charts.js", "live.js"):
        pages.add_url_rule(f"/servestorm/{name}", name.replace(".", "_"), asset, defaults={"name": name})
    return pages


@cache
def _file(name: str) -> str:
    return (_FOLDER / name).read_text()


def _extend_report_file(environment: Any, live: LiveLoad) -> None:
    """Add the section to --html FILE, which Locust writes before it fires `quit`."""
    began_s = time.time()

    def extend(**_: object) -> None:
        name = environment.parsed_options.html_file
        path = Path(name) if name else None
        # After SIGTERM Locust writes none: what is there may be the report of another load.
        if path and path.exists() and path.stat().st_mtime >= began_s:
            path.write_text(with_section(path.read_text(), live))

    environment.events.quit.add_listener(extend)


def with_section(report: str, live: LiveLoad) -> str:
    """Locust's HTML report with the load above it, drawn by the same script as in the page."""
    head, body, rest = report.rpartition("<body>")
    return f"{head}{body}{_section(live)}{rest}" if body else report


def _section(live: LiveLoad) -> str:
    shown = live.snapshot()
    verdict = shown.get("verdict")
    sentences = [shown["refusal"]] if shown["refusal"] else []
    if verdict and shown["phase"] == ENDED:
        why = "; ".join([*verdict["reasons"], *verdict["notes"]])
        sentences = [": ".join(filter(None, [_VERDICTS[verdict["valid"]], why]))]
    data = json.dumps(shown).replace("<", "\\u003c")
    return f"""
    <style>{_file("seconds.css")}</style>
    <section class="servestorm" id="servestorm-report"><noscript>{html.escape(" ".join(sentences))}</noscript></section>
    <script>
      {_file("charts.js")}
      addEventListener("DOMContentLoaded", () => {{
        const section = document.getElementById("servestorm-report");
        section.dataset.theme = window.theme === "dark" ? "dark" : "light";
        new ServestormCharts(section).show({data});
      }});
    </script>
"""
