"""What Airflow and the gallery learn of a failure: one error, one text, and advice that is true of the try."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from airflow_provider_odirouter.compat import AirflowFailException
from airflow_provider_odirouter.errors import (
    AuthenticationError,
    InvalidParametersError,
    LostSubmitError,
    NoAnswerError,
    OdiRouterError,
    Problem,
    RequestUnreachableError,
    ServiceError,
)
from airflow_provider_odirouter.lifecycle.failures import handle_failure, may_be_retried, will_be_retried
from airflow_provider_odirouter.lifecycle.ownership import Ownership
from airflow_provider_odirouter.xcoms import FAILURE_XCOM

pytestmark = pytest.mark.every_version


def context_of(try_number: int = 1, *, retries: int | None = 1, max_tries: int | None = None, **task: Any) -> Any:
    pushed: list[tuple[str, Any]] = []
    ti = SimpleNamespace(
        try_number=try_number,
        max_tries=(retries or 0) if max_tries is None else max_tries,
        xcom_push=lambda key, value: pushed.append((key, value)),
        pushed=pushed,
    )
    return {"ti": ti, "task": SimpleNamespace(retries=retries, **task)}


class Owner:
    def __init__(self, *, is_owner: bool = True) -> None:
        self.is_owner = is_owner

    def is_owner_within(self, seconds: float) -> bool:
        return self.is_owner


def fail(error: BaseException, cause: BaseException | None = None, **context: Any) -> tuple[BaseException, Any]:
    """Let a try fail, and return what Airflow gets, and the XComs."""
    made = context_of(**context)
    with pytest.raises(BaseException) as raised, handle_failure(made, cast("Ownership", Owner())):  # noqa: PT011
        raise error from cause
    return raised.value, made["ti"].pushed


KEY = AuthenticationError("The key is refused.", status_code=401)


def test_an_error_that_no_retry_cures_has_our_text_and_no_cause() -> None:
    error, _ = fail(KEY)
    assert type(error) is AirflowFailException
    assert (error.__cause__, error.__suppress_context__) == (None, True)
    assert str(error).startswith("The key is refused. Check the API key")


@pytest.mark.parametrize("kind", [LostSubmitError, RequestUnreachableError])
def test_a_cause_of_ours_is_not_shown_beside_the_error(kind: type[OdiRouterError]) -> None:
    error, _ = fail(kind("It is lost."), NoAnswerError("There is no answer."))
    assert (error.__cause__, error.__suppress_context__) == (None, True)


@pytest.mark.parametrize("kind", [LostSubmitError, RequestUnreachableError])
def test_a_cause_that_is_not_ours_is_kept_through_ours(kind: type[OdiRouterError]) -> None:
    middle, foreign = NoAnswerError("There is no answer."), OSError("the disk is broken")
    middle.__cause__ = foreign
    error, _ = fail(kind("It is lost."), middle)
    assert error.__cause__ is foreign


@pytest.mark.parametrize("kind", [LostSubmitError, RequestUnreachableError])
def test_the_failure_is_pushed_once_with_the_advice_that_airflow_gets(kind: type[OdiRouterError]) -> None:
    error, [(key, record)] = fail(kind("It is lost.", advice="Try it.", last_advice="Clear it."), retries=0)
    assert key == FAILURE_XCOM
    assert (record["what"], record["advice"]) == ("It is lost.", "Clear it.")
    assert str(error) == "It is lost. Clear it."


def test_a_process_that_is_not_the_owner_pushes_nothing() -> None:
    context = context_of()
    owner = cast("Ownership", Owner(is_owner=False))
    with pytest.raises(AirflowFailException), handle_failure(context, owner):
        raise KEY
    assert context["ti"].pushed == []


def test_a_push_that_fails_does_not_hide_the_error(caplog: pytest.LogCaptureFixture) -> None:
    context = context_of()
    context["ti"].xcom_push = lambda **_: 1 / 0
    with pytest.raises(AirflowFailException, match="refused"), handle_failure(context, cast("Ownership", Owner())):
        raise KEY
    assert "could not be pushed" in caplog.text


@pytest.mark.parametrize(
    ("context", "advice"),
    [
        ({"try_number": 1, "retries": 1}, "A retry may succeed."),
        ({"try_number": 2, "retries": 1}, "Clear the task when the service works again."),
        ({"try_number": 1, "retries": 0}, "Clear the task when the service works again."),
        ({"try_number": 1, "retries": None}, "Clear the task when the service works again."),
        ({"try_number": 3, "retries": 1, "max_tries": 3}, "A retry may succeed."),
        ({"try_number": 4, "retries": 1, "max_tries": 3}, "Clear the task when the service works again."),
        ({"try_number": 1, "retries": 1, "retry_policy": "a policy"}, "A retry may succeed."),
    ],
    ids=str,
)
def test_a_retry_is_named_only_where_airflow_has_a_try_left(context: dict[str, Any], advice: str) -> None:
    error, _ = fail(ServiceError("It is down.", status_code=503), **context)
    assert str(error) == f"It is down. {advice}"


@pytest.mark.parametrize(("try_number", "is_free"), [(1, True), (2, False)])
def test_nothing_was_paid_only_where_no_earlier_try_can_have_paid(try_number: int, is_free: bool) -> None:
    error, _ = fail(InvalidParametersError("e", [Problem("n", "is 0")]), try_number=try_number)
    assert ("nothing was paid" in str(error)) is is_free
    assert "then clear the task" in str(error)


def test_a_retry_policy_makes_a_retry_possible_and_not_certain() -> None:
    with_policy = context_of(retry_policy=object())
    assert (may_be_retried(with_policy), will_be_retried(with_policy)) == (True, False)
    assert will_be_retried(context_of())
