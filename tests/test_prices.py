"""The prices of a connection: numbers by endpoint and quality, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_odirouter.models import NOTHING_SPENT, Prices, Spending

EDIT = "gpt_image_1_edit"
PRICES = {EDIT: {"low": 0.02, "high": 0.19, "auto": 0.1}, "nano_banana_2": 0.04}


@pytest.mark.parametrize("value", [PRICES, '{"gpt_image_1_edit": {"low": 0.02, "high": 0.19, "auto": 0.1}}'], ids=type)
@pytest.mark.parametrize(
    ("parameters", "cost"),
    [
        ({"quality": "low"}, 0.02),
        ({"quality": "high", "n": 3}, 0.57),
        ({}, 0.1),
        ({"n": None, "quality": None}, 0.1),
        ({"quality": "medium"}, None),
    ],
)
def test_a_submit_costs_the_price_of_its_quality_for_each_output(value: Any, parameters: Any, cost: Any) -> None:
    assert Prices.parse(value).spending(EDIT, parameters) == (1, cost)


def test_one_price_may_hold_for_all_qualities_of_an_endpoint() -> None:
    prices = Prices.parse(PRICES)
    assert prices.spending("nano_banana_2", {"quality": "best", "n": 2}) == (1, 0.08)
    assert prices.spending("other", {}) == (1, None)


@pytest.mark.parametrize("value", [None, "", {}, "{}"])
def test_prices_may_be_left_out(value: Any) -> None:
    assert Prices.parse(value) == Prices()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("cheap", "and this is not JSON: 'cheap'"),
        ("[1, 2]", r"must be a JSON object such as .*, not \[1, 2\]"),
        (3, "must be a JSON object such as .*, not 3"),
        ({EDIT: "0.1"}, "must have a number from 0 to 1,000,000 for gpt_image_1_edit, not '0.1'"),
        ({EDIT: True}, "not True"),
        ({EDIT: None}, "not None"),
        ({EDIT: -1}, "not -1"),
        ({EDIT: float("nan")}, "not nan"),
        ('{"e": Infinity}', "for e, not inf"),
        ({EDIT: 10**400}, "not 1000"),
        ({EDIT: {"high": "much"}}, "for gpt_image_1_edit, high, not 'much'"),
        ({EDIT: {"high": {}}}, "for gpt_image_1_edit, high, not {}"),
        ({EDIT: {}}, "must have a number for gpt_image_1_edit, or numbers by quality, not {}"),
    ],
)
def test_what_is_no_price_is_refused_in_words(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Prices.parse(value)


def test_sums_have_no_errors_of_floats() -> None:
    assert Spending.sum([Spending(1, 0.1), Spending(2, 0.2)]) == (3, 0.3)
    assert Spending.sum([]) == NOTHING_SPENT


def test_a_sum_with_a_submit_that_has_no_price_is_not_known() -> None:
    assert Spending(1, 0.1).plus(Spending(1, None)) == (2, None)


@pytest.mark.parametrize(
    ("spending", "words"),
    [
        (NOTHING_SPENT, "0 submits"),
        (Spending(1, None), "1 submit"),
        (Spending(1200, 34.5), "1,200 submits, about 34.50"),
    ],
)
def test_what_was_spent_is_said_in_words(spending: Spending, words: str) -> None:
    assert str(spending) == words
