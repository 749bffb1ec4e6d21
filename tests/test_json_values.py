"""Values that can be sent as JSON and stored; all others are reported before anything is paid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import InvalidParametersError
from airflow_provider_odirouter.json_values import MAX_DEPTH, json_object


class Colour(StrEnum):
    BLUE = "blue"


class Number(IntEnum):
    ONE = 1


class Rude:
    """An object that cannot be shown: its ``repr`` raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __len__(self) -> int:
        raise RuntimeError("no len")


class Broken(Mapping[str, Any]):
    """A dictionary that cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no item")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")

    def __len__(self) -> int:
        return 1


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def wide() -> Any:
    value: Any = "x"
    for _ in range(40):
        value = [value, value]
    return value


def problems(value: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(InvalidParametersError) as raised:
        json_object("e", value, **options)
    return dict(raised.value.problems)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"prompt": "Blue\t\n \U0001f600", "n": 1, "strength": 0.5, "on": True, "mask": None},
        {"list": [1, [2, {"a": []}]], "empty": "", "": 1},
        {"least": -(2**63), "most": 2**63 - 1},
        {"deep": deep(MAX_DEPTH - 1)},
    ],
)
def test_plain_json_is_returned_unchanged(value: dict[str, Any]) -> None:
    assert json_object("e", value) == value


def test_the_result_is_a_copy_in_plain_values() -> None:
    inner = [1, (2,)]
    given = {"list": inner, "colour": Colour.BLUE, "number": Number.ONE, "view": {"a": 1}}
    plain = json_object("e", given)
    inner.append(3)
    given["view"]["a"] = 2  # type: ignore[index]
    assert plain == {"list": [1, [2]], "colour": "blue", "number": 1, "view": {"a": 1}}
    assert (type(plain["colour"]), type(plain["number"])) == (str, int)
    json.dumps(plain)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\0b", "holds a NUL character"),
        ("a\ud83d", r"holds a lone surrogate ('\ud83d')"),
        (2**63, "is a whole number of more than 64 bits"),
        (10**5000, "is a whole number of more than 64 bits"),
        (float("nan"), "is infinite or not a number"),
        (float("-inf"), "is infinite or not a number"),
        (b"bytes", "is not JSON: its type is bytes"),
        ({1, 2}, "is not JSON: its type is set"),
        (Decimal(1), "is not JSON: its type is Decimal"),
        (Path("/cup.png"), "is not JSON: its type is PosixPath"),
        (iter([1]), "is not JSON: its type is list_iterator"),
        (Rude(), "is not JSON: its type is Rude"),
        (Broken(), "cannot be read: RuntimeError"),
        ({1: "a"}, "has a key that is not text: its type is int"),
        ({"a\0": 1}, "has a key that holds a NUL character"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_invalid_value_is_named_with_its_position(value: Any, message: str) -> None:
    assert problems({"a": [1, {"b": value}]})["parameters.a[1].b"].startswith(message)
    assert next(iter(problems({"b": value}, name=""))) == "b"


@pytest.mark.parametrize("value", [deep(MAX_DEPTH + 1), deep(10_000), endless()], ids=["deep", "deeper", "endless"])
def test_too_deep_values_are_refused(value: Any) -> None:
    [message] = problems({"a": value}).values()
    assert message == f"is nested more than {MAX_DEPTH} lists and objects deep"


def test_too_many_values_are_refused() -> None:
    [message] = problems({"a": wide()}).values()
    assert "more than 100,000 values" in message


@pytest.mark.parametrize("key", ["__classname__", "__id__", "__type", "__var", "__data__", "__version__"])
def test_a_key_that_airflow_reserves_is_refused(key: str) -> None:
    assert problems({"a": {key: "x"}}) == {f"parameters.a.{key}": "is a key that Airflow reserves"}


@pytest.mark.parametrize("value", [None, "prompt", b"", 1, [["prompt", "x"]], ("a",), {"a"}, Rude()], ids=type)
def test_a_value_that_is_not_an_object_is_refused(value: Any) -> None:
    expected = f"must be a JSON object (a dictionary), not {type(value).__name__}"
    assert problems(value) == {"parameters": expected}
    assert problems(value, name="") == {"parameters": expected}


def test_all_problems_are_listed_at_once() -> None:
    assert list(problems({"a": "\0", "b": [b"", {"c": 2**64}]})) == [
        "parameters.a",
        "parameters.b[0]",
        "parameters.b[1].c",
    ]


def test_templates_are_not_checked() -> None:
    value = {"a": "{{ \0 }}", "b": "\0"}
    assert list(problems(value, has_template=lambda one: isinstance(one, str) and "{{" in one)) == ["parameters.b"]
