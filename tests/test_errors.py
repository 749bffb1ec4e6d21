"""The tree of errors, and the facts and texts of each class."""

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
    NamesTakenError,
    NoAnswerError,
    NoBalanceError,
    NoneApprovedError,
    NoOutputError,
    NotSentError,
    OdiRouterError,
    OutputExistsError,
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
    RequestUnreachableError,
    ReviewError,
    ServiceError,
    StorageError,
    SubmitLimitError,
    TransportError,
    UnreadableAnswerError,
    UnusablePathError,
)

FACTS: dict[type[OdiRouterError], tuple[bool, bool]] = {
    # is_transient: the same call may succeed a moment later; retry_helps: a retry of the task may succeed
    OdiRouterError: (False, True),
    InvalidParametersError: (False, False),
    NamesTakenError: (False, False),
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
    SubmitLimitError: (False, False),
    RequestError: (False, True),
    RequestFailedError: (False, True),
    RequestRefusedError: (False, False),
    RequestCanceledError: (False, True),
    RequestTimeoutError: (False, True),
    RequestLostError: (False, True),
    RequestUnreachableError: (False, True),
    BatchFailedError: (False, True),
    BatchRefusedError: (False, False),
    ReviewError: (False, True),
    NoneApprovedError: (False, False),
    BatchStateError: (False, False),
    BatchStateMissingError: (False, True),
    LandingError: (False, True),
    NoOutputError: (False, False),
    FileExpiredError: (False, True),
    PrivateAddressError: (False, False),
    StorageError: (False, True),
    UnusablePathError: (False, False),
    OutputExistsError: (False, True),
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


def test_every_line_of_the_tree_describes_its_class() -> None:
    lines = re.findall(r"^ +[│├└─ ]*[├└]── \w+Error.*$", errors.__doc__ or "", re.MULTILINE)
    assert len(lines) == len(FACTS) - 1
    assert [line for line in lines if not re.search(r"Error +\S", line)] == []


def test_the_table_of_facts_has_every_class() -> None:
    assert {kind.__name__ for kind in FACTS} == {"OdiRouterError", *dict(tree())}


@pytest.mark.parametrize(("kind", "facts"), FACTS.items(), ids=lambda value: getattr(value, "__name__", None))
def test_each_class_has_its_facts(kind: type[OdiRouterError], facts: tuple[bool, bool]) -> None:
    assert (kind.is_transient, kind.retry_helps) == facts


@pytest.mark.parametrize("kind", [kind for kind in FACTS if kind.is_transient], ids=lambda kind: kind.__name__)
def test_a_retry_helps_after_every_transient_error(kind: type[OdiRouterError]) -> None:
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
def test_the_text_has_event_vendor_request_and_advice_in_order(details: dict[str, str], text: str) -> None:
    assert str(OdiRouterError("It rained.", **details)) == text


def test_an_error_can_replace_or_drop_the_advice_of_its_class() -> None:
    assert str(StorageError("The disk is full.")) == (
        "The disk is full. Check the path, its permissions and the free space; a retry may succeed then."
    )
    assert str(StorageError("The disk is full.", advice="Delete something.")) == "The disk is full. Delete something."
    assert str(StorageError("The disk is full.", advice="")) == "The disk is full."
    assert StorageError.advice == "Check the path, its permissions and the free space; a retry may succeed then."


def test_every_broken_rule_has_a_line() -> None:
    error = InvalidParametersError("e", iter([Problem("n", "is too large"), Problem("images[2]", "is empty")]))
    assert error.problems == (("n", "is too large"), ("images[2]", "is empty"))
    assert error.endpoint == "e"
    assert str(error).splitlines()[:3] == [
        "2 parameters of e cannot be used:",
        "  - n: is too large",
        "  - images[2]: is empty",
    ]
    assert str(error).endswith("Correct this; nothing was sent, and nothing was paid.")


def test_one_broken_rule_is_one_parameter() -> None:
    error = InvalidParametersError("e", [Problem("n", "is too large")])
    assert str(error).startswith("1 parameter of e cannot be used:\n  - n: is too large\n")


def test_invalid_parameters_are_a_value_error() -> None:
    assert issubclass(InvalidParametersError, ValueError)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in FACTS if kind not in (OdiRouterError, AnswerError, RequestError)],
    ids=lambda kind: kind.__name__,
)
def test_every_error_that_is_raised_has_advice(kind: type[OdiRouterError]) -> None:
    advised_by_polling = {RequestTimeoutError, RequestUnreachableError}
    assert bool(kind.advice) is (kind not in advised_by_polling)


@pytest.mark.parametrize("kind", FACTS, ids=lambda kind: kind.__name__)
def test_the_advice_of_a_last_try_is_to_clear_the_task_and_not_a_retry(kind: type[OdiRouterError]) -> None:
    last = kind.last_advice or kind.advice
    assert not re.search(r"\ba retry\b", last, re.IGNORECASE)
    assert not last or re.search(r"\bclear the task\b", last, re.IGNORECASE)
    if "advice" in vars(kind):
        assert "last_advice" in vars(kind) or not kind.last_advice, "the advice for a last try is that of its parent"


def test_an_advice_of_its_own_replaces_that_for_a_last_try_too() -> None:
    error = StorageError("The disk is full.", advice="Delete something.")
    error.be_last()
    assert str(error) == "The disk is full. Delete something."
    error.advise("A retry may succeed.", "Clear the task.")
    assert str(error) == "The disk is full. A retry may succeed."
    error.be_last()
    error.be_last()
    assert str(error) == "The disk is full. Clear the task."


def test_errors_survive_pickling_and_copying() -> None:
    errors: list[OdiRouterError] = [
        RequestLostError("It is missing.", vendor="What?", request_id="mmsu_1", advice="Ask."),
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
        (RequestRefusedError, "It ended. Change the prompt or the pictures: OdiRouter would refuse them again."),
        (RequestCanceledError, "It ended. Find out who cancelled it; a retry submits a new request."),
    ],
)
def test_the_end_of_a_request_says_what_a_retry_does(kind: type[RequestError], text: str) -> None:
    assert str(kind("It ended.")) == text


def test_the_pure_layers_import_neither_airflow_nor_http() -> None:
    layers = ["errors", "models", "lifecycle.polling", "protocol"]
    code = (
        "import sys\n"
        + "".join(f"import airflow_provider_odirouter.{layer}\n" for layer in layers)
        + "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    imported = set(done.stdout.split())
    assert "airflow_provider_odirouter" in imported
    assert imported.isdisjoint({"airflow", "httpx", "httpcore", "aiohttp", "requests", "PIL", "sqlalchemy"})
