"""report.html: one file without scripts, which loads nothing from elsewhere."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from servestorm.report.page import Page
from servestorm.report.result_table import SLICES_CAPTION

_HERE = Path(__file__).parent


def render(page: Page) -> str:
    """The page as HTML; the template's names are the fields of Page, and `css` and `slices_caption`."""
    css = (_HERE / "report.css").read_text()
    return _template().render(css=css, slices_caption=SLICES_CAPTION, **vars(page))


@functools.cache
def _template() -> jinja2.Template:
    """Compiled once a process: that takes longer than to fill it in."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
