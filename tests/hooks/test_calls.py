"""Polls, results and cancels on a worker, and how they are repeated."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from airflow_provider_odirouter.errors import (
    AuthenticationError,
    EndpointNotFoundError,
    NoAnswerError,
    NoOutputError,
    RateLimitedError,
    RequestNotFoundError,
    ServiceError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.hooks import odirouter
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.models import CancelOutcome, RequestResult, RequestState, RequestStatus
from airflow_provider_odirouter.sandbox import Sandbox
from tests.hooks.conftest import Connect, Logs, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE, Exchange

ENDPOINT = "nano_banana_2"


@pytest.fixture
def request_id(hook: OdiRouterHook) -> str:
    """A request that succeeded."""
    return hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id


def count(sandbox: Sandbox, action: str) -> int:
    return sum(entry.action == action for entry in sandbox.journal)


class TestStatus:
    def test_goes_from_the_queue_to_success(self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses) -> None:
        sandbox.configure(queue_seconds=10, run_seconds=10)
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id
        states = []
        for _ in range(3):
            states.append(hook.get_status(ENDPOINT, request_id).state)
            pauses.sleep(10)

        assert states == [RequestState.IN_QUEUE, RequestState.IN_PROGRESS, RequestState.SUCCEEDED]

    def test_says_why_a_request_failed(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        sandbox.configure(error_type="CONTENT_BLOCKED", error_message="Not this.")
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id

        status = hook.get_status(ENDPOINT, request_id)

        assert status.state is RequestState.FAILED
        assert status.failure is not None
        assert status.failure.error_type == "CONTENT_BLOCKED"
        assert "Not this." in (status.failure.message or "")

    @pytest.mark.parametrize(
        ("settings", "error"),
        [
            ({"server_errors": 1}, ServiceError),
            ({"drop_next": 1}, NoAnswerError),
            ({"drop_next": 1, "drop_mode": "half"}, NoAnswerError),
            ({"api_key": "another"}, AuthenticationError),
            ({"endpoints": ("another",)}, EndpointNotFoundError),
            ({"not_found_seconds": 60}, RequestNotFoundError),
        ],
    )
    def test_is_sent_once_and_not_repeated(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, settings: dict[str, Any], error: type[Exception]
    ) -> None:
        sandbox.configure(not_found_seconds=settings.pop("not_found_seconds", 0))
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id
        sandbox.configure(**settings)

        with pytest.raises(error, match=request_id):
            hook.get_status(ENDPOINT, request_id)

        assert count(sandbox, "status") == 1
        assert pauses.taken == []


class TestResult:
    def test_names_the_pictures_in_order(self, hook: OdiRouterHook) -> None:
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup", "n": 3}).request_id

        result = hook.get_result(ENDPOINT, request_id)

        assert isinstance(result, RequestResult)
        assert [f"/{number}." in output.url for number, output in enumerate(result.outputs)] == [True] * 3

    def test_is_a_status_while_the_request_runs(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        sandbox.configure(queue_seconds=10)
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id

        result = hook.get_result(ENDPOINT, request_id)

        assert isinstance(result, RequestStatus)
        assert result.state is RequestState.IN_QUEUE

    @pytest.mark.parametrize(
        "settings",
        [
            {"server_errors": 3},
            {"server_errors": 2, "server_error_body": "empty", "server_error_status": 500},
            {"drop_next": 3, "drop_mode": "before"},
            {"drop_next": 3, "drop_mode": "after"},
            {"drop_next": 2, "drop_mode": "half"},
        ],
    )
    def test_is_fetched_again_after_a_transient_error(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, request_id: str, settings: dict[str, Any]
    ) -> None:
        sandbox.configure(**settings)

        assert isinstance(hook.get_result(ENDPOINT, request_id), RequestResult)
        assert pauses.taken

    def test_is_fetched_again_while_the_request_is_not_found(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses
    ) -> None:
        sandbox.configure(not_found_seconds=5)
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id

        assert isinstance(hook.get_result(ENDPOINT, request_id), RequestResult)
        assert pauses.total >= 4

    def test_is_fetched_for_at_most_five_minutes(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, request_id: str
    ) -> None:
        sandbox.configure(server_errors=None)

        with pytest.raises(ServiceError, match=request_id):
            hook.get_result(ENDPOINT, request_id)

        assert 200 <= pauses.total <= 300
        assert max(pauses.taken) <= 45

    def test_that_is_not_there_yet_is_fetched_again_for_minutes(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, request_id: str
    ) -> None:
        sandbox.configure(result_pending=5)
        assert isinstance(hook.get_result(ENDPOINT, request_id), RequestResult)

        sandbox.configure(result_pending=None)
        before = pauses.total
        with pytest.raises(ServiceError, match="OdiRouter says: “Request is still in progress”"):
            hook.get_result(ENDPOINT, request_id)
        assert 200 <= pauses.total - before <= 300

    def test_may_hold_files_that_are_larger_than_any_other_answer(
        self, hook: OdiRouterHook, sandbox: Sandbox, request_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(odirouter, "MAX_ANSWER_BYTES", 10_000)
        sandbox.configure(result_shape="data_url")
        result = hook.get_result(ENDPOINT, request_id)
        assert isinstance(result, RequestResult)
        assert len(result.outputs[0].url) > 10_000

    @pytest.mark.parametrize("shape", ["no_url", "none"])
    def test_without_a_picture_is_not_fetched_again(
        self, hook: OdiRouterHook, sandbox: Sandbox, request_id: str, shape: str
    ) -> None:
        sandbox.configure(result_shape=shape)

        with pytest.raises(NoOutputError, match="request_id"):
            hook.get_result(ENDPOINT, request_id)

        assert count(sandbox, "result") == 1

    def test_of_the_other_documented_shape_reads_the_same(
        self, hook: OdiRouterHook, sandbox: Sandbox, request_id: str
    ) -> None:
        sandbox.configure(result_shape="output")

        result = hook.get_result(ENDPOINT, request_id)

        assert isinstance(result, RequestResult)
        assert len(result.outputs) == 1


class TestCancel:
    def test_stops_a_request(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        sandbox.configure(run_seconds=60)
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id

        assert hook.cancel(ENDPOINT, request_id) is CancelOutcome.REQUESTED
        assert hook.cancel(ENDPOINT, request_id) is CancelOutcome.REQUESTED
        assert hook.get_status(ENDPOINT, request_id).state is RequestState.CANCELED

    def test_that_comes_too_late_is_not_an_error(self, hook: OdiRouterHook, request_id: str) -> None:
        assert hook.cancel(ENDPOINT, request_id) is CancelOutcome.ALREADY_COMPLETED

    def test_of_an_unknown_request_is_not_an_error(self, hook: OdiRouterHook) -> None:
        assert hook.cancel(ENDPOINT, "mmsu_unknown") is CancelOutcome.NOT_FOUND

    def test_that_the_endpoint_does_not_support_is_not_an_error(
        self, hook: OdiRouterHook, sandbox: Sandbox, request_id: str
    ) -> None:
        sandbox.configure(cancel_supported=False)

        assert hook.cancel(ENDPOINT, request_id) is CancelOutcome.UNSUPPORTED

    @pytest.mark.parametrize(
        "settings",
        [{"server_errors": 2}, {"drop_next": 2}, {"drop_next": 1, "drop_mode": "half"}],
    )
    def test_is_sent_again_after_a_transient_error(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, settings: dict[str, Any]
    ) -> None:
        sandbox.configure(run_seconds=600)
        request_id = hook.submit(ENDPOINT, {"prompt": "A blue cup"}).request_id
        sandbox.configure(**settings)

        assert hook.cancel(ENDPOINT, request_id) is CancelOutcome.REQUESTED
        assert sandbox.requests[0].cancel_requested

    def test_is_sent_again_for_at_most_20_seconds(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, request_id: str
    ) -> None:
        sandbox.configure(server_errors=None)

        with pytest.raises(ServiceError):
            hook.cancel(ENDPOINT, request_id)

        assert 5 <= pauses.total <= 20

    def test_with_a_wrong_key_is_not_sent_again(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, request_id: str
    ) -> None:
        sandbox.configure(api_key="another")

        with pytest.raises(AuthenticationError):
            hook.cancel(ENDPOINT, request_id)

        assert count(sandbox, "cancel") == 1


class TestRateLimit:
    @staticmethod
    def limit(exchange: Exchange) -> None:
        exchange.answer_json({"error": "slow down"}, status="429 Too Many Requests", retry_after="7")

    def test_does_not_repeat_a_poll(self, connect: Connect, serve: Serve, pauses: Pauses) -> None:
        with pytest.raises(RateLimitedError) as caught:
            connect(serve(self.limit).base_url).get_status(ENDPOINT, "mmsu_1")

        assert caught.value.retry_after == 7
        assert pauses.taken == []

    def test_is_honoured_before_a_cancel_is_sent_again(self, connect: Connect, serve: Serve, pauses: Pauses) -> None:
        with pytest.raises(RateLimitedError):
            connect(serve(self.limit).base_url).cancel(ENDPOINT, "mmsu_1")

        assert min(pauses.taken) >= 7
        assert pauses.total <= 200


class TestAnswers:
    def test_a_compressed_one_is_read(self, connect: Connect, serve: Serve) -> None:
        body = gzip.compress(b'{"status": "IN_PROGRESS"}')
        server = serve(lambda exchange: exchange.answer(body, content_encoding="gzip"))

        assert connect(server.base_url).get_status(ENDPOINT, "mmsu_1").state is RequestState.IN_PROGRESS
        assert server.received[0].headers["accept-encoding"] == "identity"

    @pytest.mark.parametrize("encoding", [None, "gzip"])
    def test_one_of_more_than_16_mib_is_refused(self, connect: Connect, serve: Serve, encoding: str | None) -> None:
        body = b'{"status": "IN_QUEUE", "logs": "' + b" " * 16 * 2**20 + b'"}'
        headers = {"content_encoding": encoding} if encoding else {}
        sent = gzip.compress(body, 1) if encoding else body
        server = serve(lambda exchange: exchange.answer(sent, **headers))

        with pytest.raises(UnreadableAnswerError, match=r"more than 16,777,216 bytes"):
            connect(server.base_url).get_status(ENDPOINT, "mmsu_1")

    def test_one_of_nearly_16_mib_is_read(self, connect: Connect, serve: Serve) -> None:
        body = b'{"status": "IN_QUEUE", "logs": "' + b" " * (16 * 2**20 - 64) + b'"}'
        server = serve(lambda exchange: exchange.answer(body))

        assert connect(server.base_url).get_status(ENDPOINT, "mmsu_1").state is RequestState.IN_QUEUE

    def test_each_repeat_logs_a_warning(
        self, hook: OdiRouterHook, sandbox: Sandbox, request_id: str, logs: Logs
    ) -> None:
        sandbox.configure(server_errors=2)

        hook.get_result(ENDPOINT, request_id)

        warnings = [text for text in logs() if "sent again" in text]
        assert len(warnings) == 2
        assert all("The result call is sent again in" in warning and request_id in warning for warning in warnings)

    def test_a_hook_with_its_own_client_polls_the_same_request(self, hook: OdiRouterHook, request_id: str) -> None:
        assert hook.with_own_client().get_status(ENDPOINT, request_id).state is RequestState.SUCCEEDED

    def test_unknown_fields_and_statuses_are_not_an_error(self, connect: Connect, serve: Serve) -> None:
        server = serve(lambda exchange: exchange.answer_json({**IN_QUEUE, "status": "WARMING_UP", "mood": "good"}))

        assert connect(server.base_url).get_status(ENDPOINT, "mmsu_1").state is RequestState.UNKNOWN
