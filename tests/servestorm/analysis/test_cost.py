"""What a million images cost: the arithmetic by hand, and price files that a person wrote wrongly."""

from __future__ import annotations

import datetime

import pytest
import yaml

from servestorm.analysis.cost import PRICES, Instance, cost_per_million, costs, load_prices
from servestorm.errors import StudyError

MACHINE = {
    "name": "m",
    "provider": "P",
    "region": "r",
    "vcpus": 4,
    "memory_gib": 8,
    "usd_per_hour": 0.36,
    "dated": "2026-01-02",
    "source": "https://example.com/prices",
}


@pytest.fixture
def price_file(tmp_path):
    def write(text):
        path = tmp_path / f"prices-{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(text if isinstance(text, str) else yaml.safe_dump({"instances": text}))
        return path

    return write


def machine(**changes) -> Instance:
    return Instance.model_validate({**MACHINE, **changes})


def test_a_million_images_cost_what_the_cores_for_them_cost():
    # 50 images/s on one core are 200 on four, 720,000 an hour for 0.36 dollars: half a dollar a million
    found = cost_per_million(50, 1, machine())
    assert found.images_per_hour == 720_000
    assert found.usd_per_million == pytest.approx(0.5)
    assert (found.dated, found.source) == ("2026-01-02", "https://example.com/prices")
    assert cost_per_million(100, 2, machine()).usd_per_million == pytest.approx(0.5)
    # eight cores are two of these machines
    assert cost_per_million(400, 8, machine()).usd_per_million == pytest.approx(0.5)


def test_memory_is_enough_only_for_as_many_servers_as_fill_the_machine():
    gib = 2**30
    assert cost_per_million(50, 1, machine(), 2 * gib).memory_enough is True
    assert cost_per_million(50, 1, machine(), 3 * gib).memory_enough is False
    assert cost_per_million(50, 8, machine(), 9 * gib).memory_enough is False  # a part of a server does not run
    assert cost_per_million(50, 1, machine()).memory_enough is None


def test_without_images_there_is_no_cost():
    prices = load_prices()
    assert costs(None, 1, prices) == costs(0.0, 1, prices) == []
    with pytest.raises(ValueError, match="needs images"):
        cost_per_million(0, 1, machine())


def test_the_file_that_comes_along_has_every_provider_dated_and_cited():
    prices = load_prices()
    assert {instance.provider for instance in prices.instances} == {"AWS", "Azure", "Google Cloud"}
    for instance in prices.instances:
        assert instance.dated <= datetime.date.today()
        assert instance.source.startswith("https://")
    assert len(costs(100, 1, prices)) == len(prices.instances)


def test_a_person_may_replace_it(price_file):
    (instance,) = load_prices(price_file([MACHINE])).instances
    assert instance == machine()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ([{**MACHINE, "usd": 1}], r"instances\.0\.usd: extra inputs"),
        ([{key: MACHINE[key] for key in MACHINE if key != "source"}], r"instances\.0\.source: field required"),
        ([{**MACHINE, "usd_per_hour": 0}], r"instances\.0\.usd_per_hour: input should be greater than 0"),
        ([{**MACHINE, "usd_per_hour": float("nan")}], r"instances\.0\.usd_per_hour: input should be"),
        ([{**MACHINE, "usd_per_hour": float("inf")}], r"instances\.0\.usd_per_hour: input should be a finite"),
        ([{**MACHINE, "source": "a friend"}], r"instances\.0\.source: string should match"),
        ([], "instances: list should have at least 1 item"),
        ("- [", "is not YAML"),
        ("", "the file: input should be"),
    ],
)
def test_what_is_wrong_in_a_price_file_is_named(price_file, text, words):
    with pytest.raises(StudyError, match=words):
        load_prices(price_file(text))


def test_a_price_file_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(StudyError, match="does not exist: name a price file"):
        load_prices(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="cannot be read as a price file"):
        load_prices(tmp_path / "binary")
    assert str(PRICES).endswith("prices.yaml")
