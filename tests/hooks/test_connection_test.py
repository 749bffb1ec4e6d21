"""The Test button: it costs nothing, and names a wrong key or a host that cannot be reached."""

from __future__ import annotations

import pytest
from airflow.models.connection import Connection

from airflow_provider_odirouter.errors import AuthenticationError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.sandbox import Sandbox
from tests.hooks.conftest import KEY, Connect, Pauses, Serve
from tests.hooks.raw_server import IN_QUEUE

pytestmark = pytest.mark.every_version


def test_a_right_key_is_accepted(hook: OdiRouterHook, base_url: str) -> None:
    assert hook.test_connection() == (True, f"OdiRouter accepts the API key at {base_url}.")


def test_the_test_costs_nothing(hook: OdiRouterHook, sandbox: Sandbox) -> None:
    hook.test_connection()

    assert [entry.action for entry in sandbox.journal] == ["status"]
    assert sandbox.paid == 0


@pytest.mark.filterwarnings("ignore:.*noload.* loader strategy")  # Airflow 3.2's own.
def test_airflows_own_button_finds_the_hook(base_url: str, connect: Connect) -> None:
    # Like the API server: it puts the form's connection into an environment variable.
    connect(base_url, conn_id="form")

    assert Connection(conn_id="form", conn_type="odirouter").test_connection()[0] is True


def test_an_error_names_a_wrong_key(base_url: str, connect: Connect) -> None:
    accepted, message = connect(base_url, "sk-wrong").test_connection()

    assert not accepted
    assert message.startswith("The API key is wrong: ")
    assert "401" in message
    assert "sk-wrong" not in message


def test_a_forbidden_key_is_named(connect: Connect, serve: Serve) -> None:
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


def test_a_silent_host_is_named(connect: Connect, serve: Serve) -> None:
    server = serve(lambda exchange: exchange.wait_for_hang_up())

    accepted, message = connect(server.base_url, timeout=0.1).test_connection()

    assert not accepted
    assert message.startswith("The host cannot be reached: ")


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "404 Not Found"])
def test_a_web_page_is_not_accepted_as_the_api(connect: Connect, serve: Serve, status: str) -> None:
    server = serve(lambda exchange: exchange.answer(b"<html>Welcome</html>", status=status, content_type="text/html"))

    accepted, message = connect(server.base_url).test_connection()

    assert not accepted
    assert "is not OdiRouter's" in message


def test_a_wrong_path_on_the_right_host_is_not_accepted(base_url: str, connect: Connect) -> None:
    accepted, message = connect(base_url.removesuffix("/model")).test_connection()

    assert not accepted
    assert "is not the API's base URL" in message


def test_a_redirect_is_named_with_its_target(connect: Connect, serve: Serve) -> None:
    server = serve(lambda exchange: exchange.answer(status="301 Moved", location="https://api.example/login?x=y"))

    accepted, message = connect(server.base_url).test_connection()

    assert not accepted
    assert "it redirects to https://api.example" in message
    assert "true base URL" in message


def test_a_status_answer_means_that_the_key_is_right(connect: Connect, serve: Serve) -> None:
    server = serve(lambda exchange: exchange.answer_json(IN_QUEUE))

    assert connect(server.base_url).test_connection()[0]


@pytest.mark.parametrize("settings", [{"server_errors": 1}, {"drop_next": 1}, {"endpoints": ("another",)}])
def test_any_other_answer_is_a_failure(hook: OdiRouterHook, sandbox: Sandbox, settings: dict[str, int]) -> None:
    sandbox.configure(**settings)

    assert not hook.test_connection()[0]


def test_a_connection_that_cannot_be_used_is_explained(connect: Connect) -> None:
    accepted, message = connect("ftp://odirouter.ai").test_connection()

    assert not accepted
    assert "its host must be a base URL" in message


def test_an_invalid_key_is_explained_but_not_shown(connect: Connect) -> None:
    accepted, message = connect("", f"{KEY} {KEY}").test_connection()

    assert not accepted
    assert "characters that an API key cannot have" in message
    assert KEY not in message


def test_a_missing_connection_is_named() -> None:
    accepted, message = OdiRouterHook("no_such_connection").test_connection()

    assert not accepted
    assert "'no_such_connection'" in message


RANDOM_ID = "x9Qa2LpZ"


def test_a_refused_key_names_the_connection_and_the_base_url(base_url: str, connect: Connect) -> None:
    with pytest.raises(AuthenticationError) as caught:
        connect(base_url, "sk-wrong", conn_id="shop").get_status("nano_banana_2", "mmsu_1")
    assert f"The connection is 'shop', its base URL {base_url}." in caught.value.what


async def test_a_refused_key_names_them_in_the_triggerer_too(base_url: str, connect: Connect) -> None:
    with pytest.raises(AuthenticationError) as caught:
        await connect(base_url, "sk-wrong", conn_id="shop").aget_status("nano_banana_2", "mmsu_1")
    assert f"The connection is 'shop', its base URL {base_url}." in caught.value.what


@pytest.mark.parametrize("trouble", ["wrong key", "no key", "bad extra", "bad host", "no balance", "unknown endpoint"])
def test_the_button_shows_no_random_id(trouble: str, base_url: str, connect: Connect, serve: Serve) -> None:
    if trouble == "no balance":
        body: dict[str, object] = {"status": {"code": 402, "message": "Insufficient credits", "error_code": 40201}}
        base_url = serve(lambda exchange: exchange.answer_json(body, status="402 Payment Required")).base_url
    if trouble == "unknown endpoint":
        body = {"detail": "App not found: gpt_image_1_edit"}
        base_url = serve(lambda exchange: exchange.answer_json(body, status="404 Not Found")).base_url
    host = "ftp://odirouter.ai" if trouble == "bad host" else base_url
    key = {"wrong key": "sk-wrong", "no key": ""}.get(trouble, KEY)
    extra = {"timeuot": 5} if trouble == "bad extra" else {}

    accepted, message = connect(host, key, conn_id=RANDOM_ID, **extra).test_connection()

    assert not accepted
    assert RANDOM_ID not in message
    if trouble in {"wrong key", "no balance", "unknown endpoint"}:
        assert f"The base URL is {base_url}." in message
    else:
        assert message.startswith("The connection cannot be used: ")
