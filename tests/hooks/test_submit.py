"""Money: a submit that may have arrived is never sent twice."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_odirouter.errors import (
    AuthenticationError,
    EndpointNotFoundError,
    InvalidParametersError,
    LostSubmitError,
    NoBalanceError,
    NotSentError,
    OdiRouterError,
    RateLimitedError,
    RejectedError,
    SubmitStoppedError,
    UnreadableAnswerError,
)
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox
from tests.hooks.conftest import KEY, Connect, Pauses, Serve
from tests.hooks.raw_server import Exchange

ENDPOINT = "nano_banana_2"
PARAMETERS = {"prompt": "A blue cup"}


def submits(sandbox: Sandbox) -> list[JournalEntry]:
    return sandbox.submits


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class TestWhatIsSent:
    def test_the_parameters_are_the_body(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        submission = hook.submit(ENDPOINT, {"prompt": "Grün 🙂", "n": 2, "seed": None, "deep": {"list": [1, 2.5]}})

        (entry,) = submits(sandbox)
        assert entry.body == {"prompt": "Grün 🙂", "n": 2, "seed": None, "deep": {"list": [1, 2.5]}}
        assert (entry.endpoint, entry.request_id) == (ENDPOINT, submission.request_id)

    def test_a_submit_sends_our_user_agent_and_a_trace_id(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        hook.submit(ENDPOINT, PARAMETERS)

        (entry,) = submits(sandbox)
        assert entry.authorized
        assert entry.headers["content-type"] == "application/json"
        assert re.fullmatch(r"airflow-provider-odirouter/\d+\.\d+\.\d+\S*", entry.user_agent or "")
        assert re.fullmatch("[0-9a-f]{32}", entry.headers["x-request-id"])

    def test_each_submit_has_its_own_trace_id(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        hook.submit(ENDPOINT, PARAMETERS)
        hook.submit(ENDPOINT, PARAMETERS)

        first, second = submits(sandbox)
        assert first.headers["x-request-id"] != second.headers["x-request-id"]

    def test_the_short_form_of_the_answer_is_read(self, hook: OdiRouterHook, sandbox: Sandbox) -> None:
        sandbox.configure(submit_shape="bare")

        assert hook.submit(ENDPOINT, PARAMETERS).request_id == sandbox.requests[0].request_id

    def test_a_picture_of_several_megabytes_arrives_complete(
        self, hook: OdiRouterHook, sandbox: Sandbox, pictures: Path
    ) -> None:
        from airflow_provider_odirouter.images.inputs import read_inputs

        inputs = read_inputs([str(pictures / "astronaut.png")] * 4, None)

        hook.submit("gpt_image_1_edit", {"prompt": "Add a hat", "images": list(inputs.images)})

        assert sandbox.paid == 1

    def test_a_host_that_reads_slowly_does_not_time_out(self, connect: Connect, serve: Serve) -> None:
        # Sending many pictures may take longer than the timeout of an answer.
        server = serve(lambda exchange: exchange.answer_json({"request_id": "mmsu_1"}), seconds_per_mib=0.2)

        submission = connect(server.base_url, timeout=2).submit(ENDPOINT, {"images": ["A" * 24 * 2**20]})

        assert submission.request_id == "mmsu_1"

    @pytest.mark.parametrize("endpoint", ["", "..", "a/../b", "a//b", "a\\b", "a\nb", "/nano_banana_2"])
    def test_an_endpoint_that_would_change_the_path_is_not_sent(
        self, hook: OdiRouterHook, sandbox: Sandbox, endpoint: str
    ) -> None:
        with pytest.raises(InvalidParametersError, match="endpoint"):
            hook.submit(endpoint, PARAMETERS)

        assert sandbox.journal == []

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object(), {1, 2}])
    def test_parameters_that_are_not_json_are_not_sent(self, hook: OdiRouterHook, sandbox: Sandbox, value: Any) -> None:
        with pytest.raises(InvalidParametersError, match="parameters"):
            hook.submit(ENDPOINT, {"value": value})

        assert sandbox.journal == []


class TestLost:
    """The submit may have arrived: it is sent once, and the error has its trace id."""

    @pytest.mark.parametrize("after_effect", [True, False], ids=["paid", "not paid"])
    @pytest.mark.parametrize("body", ["documented", "html", "empty"])
    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_after_a_server_error(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, status: int, body: str, after_effect: bool
    ) -> None:
        sandbox.configure(
            server_errors=1, server_error_status=status, server_error_body=body, fault_after_effect=after_effect
        )

        self.assert_lost_once(hook, sandbox, pauses)

    @pytest.mark.parametrize("mode", ["before", "after", "half"])
    def test_after_a_connection_that_breaks(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, mode: str
    ) -> None:
        sandbox.configure(drop_next=1, drop_mode=mode)

        self.assert_lost_once(hook, sandbox, pauses)

    @pytest.mark.parametrize("shape", ["html", "empty", "no_id"])
    def test_after_a_success_without_a_request_id(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, shape: str
    ) -> None:
        sandbox.configure(submit_shape=shape)

        self.assert_lost_once(hook, sandbox, pauses)

    def test_after_silence_until_the_timeout(
        self, base_url: str, connect: Connect, sandbox: Sandbox, pauses: Pauses
    ) -> None:
        sandbox.configure(hang=True)

        self.assert_lost_once(connect(base_url, timeout=0.2), sandbox, pauses)

    @pytest.mark.parametrize("request_id", ["../../admin", "a/b", "", "a\nb", 7.5, None, ["x"], "  "])
    def test_after_an_answer_with_an_invalid_request_id(
        self, connect: Connect, serve: Serve, pauses: Pauses, request_id: Any
    ) -> None:
        server = serve(lambda exchange: exchange.answer_json({"request_id": request_id}))

        with pytest.raises(LostSubmitError):
            connect(server.base_url).submit(ENDPOINT, PARAMETERS)

        assert len(server.received) == 1

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"req',
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"request_id": ',
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        ],
    )
    def test_after_an_incomplete_or_invalid_answer(
        self, connect: Connect, serve: Serve, pauses: Pauses, answer: bytes
    ) -> None:
        def behave(exchange: Exchange) -> None:
            exchange.send(answer)
            exchange.hang_up()

        server = serve(behave)

        with pytest.raises(LostSubmitError, match=re.escape("X-Request-Id: ")) as caught:
            connect(server.base_url).submit(ENDPOINT, PARAMETERS)

        assert len(server.received) == 1
        assert server.received[0].headers["x-request-id"] in str(caught.value)
        assert pauses.taken == []

    def test_after_a_deeply_nested_answer(self, connect: Connect, serve: Serve, pauses: Pauses) -> None:
        server = serve(lambda exchange: exchange.answer(b"[" * 200_000))

        with pytest.raises(LostSubmitError):
            connect(server.base_url).submit(ENDPOINT, PARAMETERS)

        assert len(server.received) == 1

    def test_after_a_rate_limit_and_not_sent_a_third_time(self, connect: Connect, serve: Serve, pauses: Pauses) -> None:
        def behave(exchange: Exchange) -> None:
            if len(server.received) == 1:
                exchange.answer(status="429 Too Many Requests")
            else:
                exchange.hang_up()

        server = serve(behave)

        with pytest.raises(LostSubmitError):
            connect(server.base_url).submit(ENDPOINT, PARAMETERS)

        assert len(server.received) == 2

    def test_each_submit_opens_a_new_connection(self, connect: Connect, serve: Serve) -> None:
        # If the service had just closed a kept connection, it would be unknown whether the submit arrived.
        server = serve(lambda exchange: exchange.answer_json({"request_id": "mmsu_1"}))
        hook = connect(server.base_url)

        hook.submit(ENDPOINT, PARAMETERS)
        hook.submit(ENDPOINT, PARAMETERS)

        assert [received.connection for received in server.received] == [1, 2]

    @staticmethod
    def assert_lost_once(hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses) -> None:
        with pytest.raises(LostSubmitError) as caught:
            hook.submit(ENDPOINT, PARAMETERS)

        (entry,) = submits(sandbox)
        assert f"X-Request-Id: {entry.headers['x-request-id']}" in str(caught.value)
        assert "may be paid" in str(caught.value)
        assert not caught.value.retry_helps
        assert KEY not in str(caught.value)
        assert pauses.taken == []


class TestCertainlyNotArrived:
    """The submit is sent again for a while, after growing pauses."""

    def test_a_refused_connection_is_repeated_for_30_seconds(self, connect: Connect, pauses: Pauses) -> None:
        hook = connect(f"http://127.0.0.1:{closed_port()}/model")

        with pytest.raises(NotSentError, match=r"No connection to 127\.0\.0\.1"):
            hook.submit(ENDPOINT, PARAMETERS)

        assert len(pauses.taken) >= 3
        assert pauses.total <= 30
        assert pauses.taken == sorted(pauses.taken)

    def test_an_unknown_host_name_is_repeated(
        self, connect: Connect, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", fail)

        with pytest.raises(NotSentError, match=r"No connection to nonexistent\.invalid"):
            connect("https://nonexistent.invalid/model").submit(ENDPOINT, PARAMETERS)

        assert len(pauses.taken) >= 3

    def test_a_service_that_starts_meanwhile_gets_one_submit(
        self, connect: Connect, pauses: Pauses, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
    ) -> None:
        port = closed_port()
        hook = connect(f"http://127.0.0.1:{port}/model")
        server = sandbox.serve(port=port)

        def start(seconds: float) -> None:
            pauses.taken.append(seconds)
            if len(pauses.taken) == 2:
                server.__enter__()

        monkeypatch.setattr(pauses, "sleep", start)
        try:
            submission = hook.submit(ENDPOINT, PARAMETERS)
        finally:
            server.__exit__(None, None, None)

        (entry,) = submits(sandbox)
        assert entry.request_id == submission.request_id

    def test_a_failed_tls_handshake_is_not_a_submit(self, connect: Connect, pauses: Pauses, serve: Serve) -> None:
        server = serve(lambda exchange: exchange.answer())

        with pytest.raises(NotSentError):
            connect(server.base_url.replace("http:", "https:")).submit(ENDPOINT, PARAMETERS)

        assert server.received == []
        assert pauses.taken

    def test_a_proxy_that_opens_no_tunnel_is_not_a_submit(
        self, connect: Connect, pauses: Pauses, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = serve(lambda exchange: exchange.answer(status="503 Service Unavailable"))
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)

        with pytest.raises(NotSentError):
            connect("https://api.example/model").submit(ENDPOINT, PARAMETERS)

        assert {received.method for received in proxy.received} == {"CONNECT"}
        assert "authorization" not in proxy.received[0].headers
        assert len(proxy.received) > 1

    def test_a_rate_limited_submit_waits_as_long_as_asked(self, connect: Connect, pauses: Pauses, serve: Serve) -> None:
        def behave(exchange: Exchange) -> None:
            if len(server.received) < 3:
                exchange.answer(status="429 Too Many Requests", retry_after="17")
            else:
                exchange.answer_json({"request_id": "mmsu_1"})

        server = serve(behave)

        submission = connect(server.base_url).submit(ENDPOINT, PARAMETERS)

        assert submission.request_id == "mmsu_1"
        assert len(pauses.taken) == 2
        assert all(17 <= pause <= 17 * 1.5 for pause in pauses.taken)

    @pytest.mark.parametrize("form", ["seconds", "date", "absent"])
    def test_the_sandbox_limits_the_rate_and_then_accepts_it(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, form: str
    ) -> None:
        sandbox.configure(rate_limit=1, retry_after_form=form)

        hook.submit(ENDPOINT, PARAMETERS)
        hook.submit(ENDPOINT, PARAMETERS)

        assert sandbox.paid == 2
        assert 429 in [entry.status_code for entry in submits(sandbox)]
        assert pauses.taken

    def test_an_endless_rate_limit_fails_after_five_minutes(
        self, connect: Connect, pauses: Pauses, serve: Serve
    ) -> None:
        server = serve(lambda exchange: exchange.answer(status="429 Too Many Requests", retry_after="86400"))

        with pytest.raises(RateLimitedError):
            connect(server.base_url).submit(ENDPOINT, PARAMETERS)

        assert 1 <= len(pauses.taken) <= 2
        assert pauses.total <= 300

    def test_the_repeats_of_one_submit_share_a_trace_id(self, connect: Connect, pauses: Pauses, serve: Serve) -> None:
        def behave(exchange: Exchange) -> None:
            if len(server.received) < 3:
                exchange.answer(status="429 Too Many Requests")
            else:
                exchange.answer_json({"request_id": "mmsu_1"})

        server = serve(behave)

        connect(server.base_url).submit(ENDPOINT, PARAMETERS)

        assert len({received.headers["x-request-id"] for received in server.received}) == 1
        assert len({received.body for received in server.received}) == 1


class TestRefused:
    """The service refuses: nothing was paid, and nothing is sent again."""

    @pytest.mark.parametrize(
        ("settings", "error"),
        [
            ({"balance": 0}, NoBalanceError),
            ({"balance": 0, "no_balance_shape": "403"}, NoBalanceError),
            ({"api_key": "another"}, AuthenticationError),
            ({"endpoints": ("another",)}, EndpointNotFoundError),
        ],
    )
    def test_by_the_sandbox(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, settings: dict[str, Any], error: type[Exception]
    ) -> None:
        sandbox.configure(**settings)

        with pytest.raises(error):
            hook.submit(ENDPOINT, PARAMETERS)

        assert len(submits(sandbox)) == 1
        assert sandbox.paid == 0
        assert pauses.taken == []

    @pytest.mark.parametrize("status", [400, 422])
    def test_because_of_its_parameters(
        self, hook: OdiRouterHook, sandbox: Sandbox, pauses: Pauses, status: int
    ) -> None:
        sandbox.configure(rejection_status=status)

        with pytest.raises(RejectedError, match="prompt") as caught:
            hook.submit("gpt_image_1_edit", {"images": []})

        assert caught.value.status_code == status
        assert len(submits(sandbox)) == 1

    @pytest.mark.parametrize("status", ["400 Bad Request", "413 Payload Too Large", "403 Forbidden", "405 No"])
    def test_by_a_proxys_page(self, connect: Connect, serve: Serve, pauses: Pauses, status: str) -> None:
        server = serve(lambda exchange: exchange.answer(b"<html>No.</html>", status=status, content_type="text/html"))

        with pytest.raises(OdiRouterError) as caught:
            connect(server.base_url).submit(ENDPOINT, PARAMETERS)

        assert not isinstance(caught.value, LostSubmitError)
        # A proxy may forbid it for a while only.
        assert caught.value.retry_helps is status.startswith("403")
        assert len(server.received) == 1

    def test_by_a_redirect(self, hook: OdiRouterHook, sandbox: Sandbox, serve: Serve, pauses: Pauses) -> None:
        elsewhere = serve(lambda exchange: exchange.answer_json({"request_id": "mmsu_1"}))
        sandbox.configure(redirect_to=f"{elsewhere.origin}/steal?it=all")

        with pytest.raises(UnreadableAnswerError, match="redirects to http://127"):
            hook.submit(ENDPOINT, PARAMETERS)

        assert len(submits(sandbox)) == 1
        assert elsewhere.connections == 0


def test_a_submit_stopped_in_a_pause_is_not_sent_again(connect: Connect, pauses: Pauses) -> None:
    asked: list[int] = []

    def stop_the_second() -> None:
        asked.append(len(pauses.taken))
        if len(asked) == 2:
            raise SubmitStoppedError("The task was killed.")

    hook = connect("http://127.0.0.1:9")
    hook.before_submit = stop_the_second
    with pytest.raises(SubmitStoppedError):
        hook.submit("gpt_image_1_edit", {"prompt": "Blue"})
    assert asked == [0, 1]
