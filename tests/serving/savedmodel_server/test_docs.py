"""Pages of docs/reference: every flag with the default that the program has, and the cases that were seen elsewhere."""

import pytest

from serving.savedmodel_server.flags import REFUSED, SUPPORTED
from tests.serving.savedmodel_server.tfserving_api import cases_page
from tests.source_tree import ROOT

TEXT = (ROOT / "docs" / "reference" / "savedmodel-server.md").read_text()


def test_every_flag_stands_in_the_table_with_its_default_and_its_help():
    for name, flag in SUPPORTED.items():
        default = "none" if flag.default == "" else flag.default
        default = str(default).lower() if isinstance(default, bool) else default
        assert f"| `--{name}` | {default} | {flag.help} |" in TEXT


def test_every_refused_flag_is_named():
    assert [name for name in REFUSED if f"`--{name}`" not in TEXT] == []


@pytest.fixture(scope="module")
def cases():
    return cases_page.cases()


def test_the_page_of_cases_is_the_one_that_is_generated(cases):
    written_by = "python tests/serving/savedmodel_server/tfserving_api/cases_page.py"
    assert cases_page.PAGE.read_text() == cases_page.page(cases), f"run {written_by}"


def test_every_case_that_was_seen_elsewhere_exists_and_no_case_is_hidden(cases):
    lines = cases_page.seen_lines()
    assert [line for line in lines if not any(c.file == line[0] and cases_page.is_of(c, line[1]) for c in cases)] == []
    assert {how for _, _, how in lines} == set(cases_page.HOWS)
    assert {case.file for case in cases} == set(cases_page.TITLES)


def test_of_a_function_whose_cases_were_seen_in_part_the_page_counts_them(monkeypatch, tmp_path):
    monkeypatch.setattr(cases_page, "SEEN", tmp_path / "seen.txt")
    cases_page.SEEN.write_text("test_rest.py test_a[1] recorded\ntest_rest.py test_b_c observed\n")
    found = [cases_page.Case("test_rest.py", name, given) for name, given in (("test_a", "1"), ("test_a", "2"))]
    found += [cases_page.Case("test_rest.py", "test_b_c", "x"), cases_page.Case("test_grpc.py", "test_a", "1")]
    text = cases_page.page(found)
    assert "| a | recorded 1 of 2 |\n| b c | observed |" in text
    assert "| a | no |" in text and "Of 4 cases, parameters counted, 2 were seen there." in text


@pytest.mark.parametrize(
    ("given", "left"), [("loop", ""), ("", ""), ("loop-a-b", "a-b"), ("a-grpcio", "a"), ("grpcio-loop-x", "loop-x")]
)
def test_the_transport_is_no_parameter_of_a_case(given, left):
    assert cases_page._without_transport(given) == left
