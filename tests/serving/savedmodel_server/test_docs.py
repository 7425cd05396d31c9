"""docs/reference/savedmodel-server.md names every flag, with the default that the program has."""

from serving.savedmodel_server.flags import REFUSED, SUPPORTED
from tests.source_tree import ROOT

TEXT = (ROOT / "docs" / "reference" / "savedmodel-server.md").read_text()


def test_every_flag_stands_in_the_table_with_its_default_and_its_help():
    for name, flag in SUPPORTED.items():
        default = "none" if flag.default == "" else flag.default
        default = str(default).lower() if isinstance(default, bool) else default
        assert f"| `--{name}` | {default} | {flag.help} |" in TEXT


def test_every_refused_flag_is_named():
    assert [name for name in REFUSED if f"`--{name}`" not in TEXT] == []
