"""The Test button: it costs nothing, and tells a wrong key from a host that cannot be reached."""

from __future__ import annotations

import pytest
from airflow.models.connection import Connection

from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.sandbox import Sandbox
from tests.hooks.conftest import KEY, Connect, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE


def test_a_right_key_is_accepted(hook: OdiRouterHook, base_url: str) -> None:
    assert hook.test_connection() == (True, f"OdiRouter accepts the API key at {base_url}.")


def test_it_costs_nothing(hook: OdiRouterHook, sandbox: Sandbox) -> None:
    hook.test_connection()

    assert [entry.action for entry in sandbox.journal] == ["status"]
    assert sandbox.paid == 0


@pytest.mark.filterwarnings("ignore:.*noload.* loader strategy")  # Airflow 3.2's own.
def test_airflows_own_button_finds_the_hook(base_url: str, connect: Connect) -> None:
    # As the API server does it: the connection of the form lies in an environment variable.
    connect(base_url, conn_id="form")

    assert Connection(conn_id="form", conn_type="odirouter").test_connection()[0] is True


def test_a_wrong_key_is_named(base_url: str, connect: Connect) -> None:
    accepted, message = connect(base_url, "sk-wrong").test_connection()

    assert not accepted
    assert message.startswith("The API key is wrong: ")
    assert "401" in message
    assert "sk-wrong" not in message


def test_a_key_that_may_not_be_used_is_named(connect: Connect, serve: Serve) -> None:
    body = {"detail": "Model not allowed for this user"}
    server = serve(lambda exchange: exchange.answer_json(body, status="403 Forbidden"))

    accepted, message = connect(server.base_url).test_connection()

    assert not accepted
    assert "Model not allowed for this user" in message


@pytest.mark.parametrize("host", ["http://127.0.0.1:1/model", "https://127.0.0.1:1/model"])
def test_a_host_that_cannot_be_reached_is_named(connect: Connect, pauses: Pauses, host: str) -> None:
    accepted, message = connect(host).test_connection()

    assert not accepted
    assert message.startswith("The host cannot be reached: No connection to 127.0.0.1")
    assert pauses.taken == []


def test_a_host_that_does_not_answer_is_named(connect: Connect, serve: Serve) -> None:
    server = serve(lambda exchange: exchange.wait_for_hang_up())

    accepted, message = connect(server.base_url, timeout=0.1).test_connection()

    assert not accepted
    assert message.startswith("The host cannot be reached: ")


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "404 Not Found"])
def test_a_page_is_not_taken_for_the_api(connect: Connect, serve: Serve, status: str) -> None:
    server = serve(lambda exchange: exchange.answer(b"<html>Welcome</html>", status=status, content_type="text/html"))

    accepted, message = connect(server.base_url).test_connection()

    assert not accepted
    assert "is not OdiRouter's" in message


def test_the_wrong_path_of_the_right_host_is_not_taken_for_the_api(base_url: str, connect: Connect) -> None:
    accepted, message = connect(base_url.removesuffix("/model")).test_connection()

    assert not accepted
    assert "is not the API's base URL" in message


def test_a_redirect_is_named_with_its_target(connect: Connect, serve: Serve) -> None:
    server = serve(lambda exchange: exchange.answer(status="301 Moved", location="https://api.example/login?x=y"))

    accepted, message = connect(server.base_url).test_connection()

    assert not accepted
    assert "it redirects to https://api.example" in message
    assert "true base URL" in message


def test_an_answer_that_knows_the_request_means_a_right_key_too(connect: Connect, serve: Serve) -> None:
    server = serve(lambda exchange: exchange.answer_json(IN_QUEUE))

    assert connect(server.base_url).test_connection()[0]


@pytest.mark.parametrize("settings", [{"server_errors": 1}, {"drop_next": 1}, {"endpoints": ("another",)}])
def test_any_other_answer_is_no_success(hook: OdiRouterHook, sandbox: Sandbox, settings: dict[str, int]) -> None:
    sandbox.configure(**settings)

    assert not hook.test_connection()[0]


def test_a_connection_that_cannot_be_used_is_explained(connect: Connect) -> None:
    accepted, message = connect("ftp://odirouter.ai").test_connection()

    assert not accepted
    assert "its host must be a base URL" in message


def test_a_key_that_cannot_be_one_is_explained_unseen(connect: Connect) -> None:
    accepted, message = connect("", f"{KEY} {KEY}").test_connection()

    assert not accepted
    assert "characters that no key has" in message
    assert KEY not in message


def test_a_connection_that_does_not_exist_is_named() -> None:
    accepted, message = OdiRouterHook("no_such_connection").test_connection()

    assert not accepted
    assert "'no_such_connection'" in message
