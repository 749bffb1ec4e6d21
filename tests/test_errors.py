"""The tree of errors, and what each says of itself."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from airflow_provider_odirouter import errors
from airflow_provider_odirouter.errors import (
    AnswerError,
    AuthenticationError,
    BatchFailedError,
    BatchRefusedError,
    BatchStateError,
    BatchStateMissingError,
    ConnectionNotFoundError,
    ConnectionSettingsError,
    EndpointNotFoundError,
    EnvironmentSettingsError,
    FileExpiredError,
    InvalidParametersError,
    LandingError,
    LostSubmitError,
    NoAnswerError,
    NoBalanceError,
    NoOutputError,
    NotSentError,
    OdiRouterError,
    PathNotFoundError,
    PrivateAddressError,
    Problem,
    RateLimitedError,
    RejectedError,
    RequestCanceledError,
    RequestError,
    RequestFailedError,
    RequestLostError,
    RequestNotFoundError,
    RequestRefusedError,
    RequestTimeoutError,
    RequestUnwatchedError,
    ServiceError,
    StorageError,
    TransportError,
    UnreadableAnswerError,
)

FACTS: dict[type[OdiRouterError], tuple[bool, bool]] = {
    # passing: the same call may succeed a moment later; retry_helps: a new try of the task can cure it
    OdiRouterError: (False, True),
    InvalidParametersError: (False, False),
    ConnectionSettingsError: (False, False),
    EnvironmentSettingsError: (False, True),
    ConnectionNotFoundError: (True, True),
    TransportError: (True, True),
    NotSentError: (True, True),
    NoAnswerError: (True, True),
    UnreadableAnswerError: (True, True),
    AnswerError: (False, True),
    RejectedError: (False, False),
    AuthenticationError: (False, False),
    NoBalanceError: (False, False),
    EndpointNotFoundError: (False, False),
    RequestNotFoundError: (False, True),
    PathNotFoundError: (True, True),
    RateLimitedError: (True, True),
    ServiceError: (True, True),
    LostSubmitError: (False, False),
    RequestError: (False, True),
    RequestFailedError: (False, True),
    RequestRefusedError: (False, False),
    RequestCanceledError: (False, True),
    RequestTimeoutError: (False, True),
    RequestLostError: (False, True),
    RequestUnwatchedError: (False, True),
    BatchFailedError: (False, True),
    BatchRefusedError: (False, False),
    BatchStateError: (False, False),
    BatchStateMissingError: (False, True),
    LandingError: (False, True),
    NoOutputError: (False, False),
    FileExpiredError: (False, True),
    PrivateAddressError: (False, False),
    StorageError: (False, True),
}


def tree(kind: type[OdiRouterError] = OdiRouterError) -> Iterator[tuple[str, str]]:
    """Walk the classes: each with its parent."""
    for child in kind.__subclasses__():
        yield child.__name__, kind.__name__
        yield from tree(child)


def drawn(docstring: str) -> Iterator[tuple[str, str]]:
    """Read the tree that a docstring draws: each class with its parent."""
    above: list[str] = []
    for branch, name in re.findall(r"^ {4}([│├└─ ]*)(\w+Error)\b", docstring, re.MULTILINE):
        above[len(branch) // 4 :] = [name]
        if branch:
            yield name, above[-2]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert errors.__doc__ is not None
    assert list(drawn(errors.__doc__)) == list(tree())


def test_every_line_of_the_tree_says_what_the_class_is() -> None:
    lines = re.findall(r"^ +[│├└─ ]*[├└]── \w+Error.*$", errors.__doc__ or "", re.MULTILINE)
    assert len(lines) == len(FACTS) - 1
    assert [line for line in lines if not re.search(r"Error +\S", line)] == []


def test_the_table_of_facts_misses_no_class() -> None:
    assert {kind.__name__ for kind in FACTS} == {"OdiRouterError", *dict(tree())}


@pytest.mark.parametrize(("kind", "facts"), FACTS.items(), ids=lambda value: getattr(value, "__name__", None))
def test_each_class_says_whether_it_passes_and_whether_a_retry_helps(
    kind: type[OdiRouterError], facts: tuple[bool, bool]
) -> None:
    assert (kind.passing, kind.retry_helps) == facts


@pytest.mark.parametrize("kind", [kind for kind in FACTS if kind.passing], ids=lambda kind: kind.__name__)
def test_what_passes_is_worth_a_retry(kind: type[OdiRouterError]) -> None:
    assert kind.retry_helps


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({}, "It rained."),
        ({"advice": "Wait."}, "It rained. Wait."),
        ({"request_id": "mmsu_1"}, "It rained. Request: mmsu_1."),
        ({"vendor": "Wet"}, "It rained. OdiRouter says: “Wet”."),
        (
            {"advice": "Wait.", "request_id": "mmsu_1", "vendor": "Wet"},
            "It rained. OdiRouter says: “Wet”. Request: mmsu_1. Wait.",
        ),
    ],
    ids=str,
)
def test_the_text_names_what_happened_the_vendors_words_the_request_and_what_to_do(
    details: dict[str, str], text: str
) -> None:
    assert str(OdiRouterError("It rained.", **details)) == text


def test_a_class_brings_its_own_advice_which_one_error_can_replace_or_drop() -> None:
    assert str(StorageError("The disk is full.")) == (
        "The disk is full. Check the path, its permissions and the free space, then retry."
    )
    assert str(StorageError("The disk is full.", advice="Delete something.")) == "The disk is full. Delete something."
    assert str(StorageError("The disk is full.", advice="")) == "The disk is full."
    assert StorageError.advice == "Check the path, its permissions and the free space, then retry."


def test_every_broken_rule_has_a_line() -> None:
    error = InvalidParametersError("e", iter([Problem("n", "is too large"), Problem("images[2]", "is empty")]))
    assert error.problems == (("n", "is too large"), ("images[2]", "is empty"))
    assert error.endpoint == "e"
    assert str(error).splitlines()[:3] == [
        "2 parameters of e cannot be used:",
        "  - n: is too large",
        "  - images[2]: is empty",
    ]
    assert str(error).endswith("nothing was sent, nothing was paid, and a retry would fail in the same way.")


def test_one_broken_rule_is_one_parameter() -> None:
    error = InvalidParametersError("e", [Problem("n", "is too large")])
    assert str(error).startswith("1 parameter of e cannot be used:\n  - n: is too large\n")


def test_broken_rules_are_a_value_error_too() -> None:
    assert issubclass(InvalidParametersError, ValueError)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in FACTS if kind not in (OdiRouterError, AnswerError, RequestError)],
    ids=lambda kind: kind.__name__,
)
def test_every_error_that_is_raised_says_what_to_do(kind: type[OdiRouterError]) -> None:
    told_by_polling = {RequestTimeoutError, RequestUnwatchedError}
    assert bool(kind.advice) is (kind not in told_by_polling)


def test_errors_survive_pickling_and_copying() -> None:
    errors: list[OdiRouterError] = [
        RequestLostError("Gone.", vendor="What?", request_id="mmsu_1", advice="Ask."),
        RejectedError("No.", status_code=422, code="E1", vendor="Bad size"),
        UnreadableAnswerError("A page.", status_code=200),
        InvalidParametersError("e", [Problem("n", "is 0"), Problem("size", "is small")]),
    ]
    for error in errors:
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(again) is type(error)
            assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (RequestFailedError, "It ended. A retry submits a new request."),
        (RequestRefusedError, "It ended. Change the prompt or the pictures; a retry would be refused again."),
        (RequestCanceledError, "It ended. Find out who cancelled it; a retry submits a new request."),
    ],
)
def test_the_end_of_a_request_says_what_a_retry_does(kind: type[RequestError], text: str) -> None:
    assert str(kind("It ended.")) == text


def test_the_pure_rooms_import_neither_airflow_nor_anything_that_opens_a_socket() -> None:
    rooms = ["errors", "models", "polling", "protocol"]
    code = (
        "import sys\n"
        + "".join(f"import airflow_provider_odirouter.{room}\n" for room in rooms)
        + "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    imported = set(done.stdout.split())
    assert "airflow_provider_odirouter" in imported
    assert imported.isdisjoint({"airflow", "httpx", "httpcore", "aiohttp", "requests", "PIL", "sqlalchemy"})
