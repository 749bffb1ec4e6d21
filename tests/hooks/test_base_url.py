"""Host, port, schema and path in all forms that Airflow accepts: each part is used or refused."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from airflow.models.connection import Connection as StoredConnection

from airflow_provider_odirouter.errors import ConnectionSettingsError, NoAnswerError, NotSentError
from airflow_provider_odirouter.hooks.base_url import base_url_of
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from tests.hooks.conftest import KEY, Serve
from tests.hooks.raw_server import IN_QUEUE, RawServer

Fields = dict[str, Any]

LOCAL = "http://127.0.0.1:8088/model"
PUBLIC = "https://odirouter.ai/model"


def base_url(fields: Fields) -> str:
    return base_url_of(fields.get("host"), fields.get("port"), fields.get("schema"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"host": "http://127.0.0.1", "port": 8088, "schema": "model"}, LOCAL),
        ({"host": "http://127.0.0.1:8088", "port": 8088, "schema": "/model/"}, LOCAL),
        ({"host": "http://127.0.0.1/model", "port": "8088", "schema": "model"}, LOCAL),
        ({"host": "http://127.0.0.1:8088/model/", "schema": "http"}, LOCAL),
        ({"host": "HTTP://127.0.0.1:8088/model", "schema": "HTTP"}, LOCAL),
        ({"host": "127.0.0.1", "port": 8088, "schema": "http"}, LOCAL),
        ({"host": "127.0.0.1:8088", "schema": "http://"}, LOCAL),
        ({"host": "127.0.0.1:8088/model", "schema": " http "}, LOCAL),
        ({"host": "http://127.0.0.1", "port": 8088}, "http://127.0.0.1:8088"),
        ({"host": "https://odirouter.ai", "port": 443, "schema": "model"}, PUBLIC),
        ({"host": "https://odirouter.ai:443/model"}, PUBLIC),
        ({"host": "http://h:80", "port": 80}, "http://h"),
        ({"host": "HTTPS://OdiRouter.AI/model"}, PUBLIC),
        ({"host": "odirouter.ai", "schema": "https"}, PUBLIC),
        ({"host": "odirouter.ai:8443", "port": 8443}, "https://odirouter.ai:8443/model"),
        ({"host": "odirouter.ai", "schema": "/http"}, "https://odirouter.ai/http"),
        ({"host": "odirouter.ai/v2", "schema": "v2"}, "https://odirouter.ai/v2"),
        ({"host": "https://odirouter.ai/m%C3%B6del", "schema": "mödel"}, "https://odirouter.ai/m%C3%B6del"),
        ({"schema": "https"}, PUBLIC),
        ({"schema": "v2"}, "https://odirouter.ai/v2"),
        ({"port": 8443}, "https://odirouter.ai:8443/model"),
        ({"host": "", "port": None, "schema": ""}, PUBLIC),
        ({"host": "::1", "port": 8088}, "https://[::1]:8088/model"),
        ({"host": "[::1]:8088"}, "https://[::1]:8088/model"),
        ({"host": "http://::1", "port": 8088, "schema": "model"}, "http://[::1]:8088/model"),
        ({"host": "http://[::1]", "port": 8088, "schema": "model"}, "http://[::1]:8088/model"),
        ({"host": "http://[::1]:8088/model"}, "http://[::1]:8088/model"),
        ({"host": "2001:DB8:0::1", "schema": "http"}, "http://[2001:db8::1]/model"),
    ],
    ids=str,
)
def test_each_part_may_be_in_any_of_its_fields(fields: Fields, expected: str) -> None:
    assert base_url(fields) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "http://127.0.0.1:1", "port": 2}, "port field contradict each other (1, 2)"),
        ({"host": "127.0.0.1:1", "port": 2}, "port field contradict each other (1, 2)"),
        ({"host": "[::1]:1", "port": 2}, "port field contradict each other (1, 2)"),
        ({"host": "https://h", "schema": "http"}, "schema field contradict each other (https, http)"),
        ({"host": "http://h", "schema": "HTTPS"}, "schema field contradict each other (http, https)"),
        ({"host": "http://h/model", "schema": "other"}, "schema field contradict each other"),
        ({"host": "h/model", "schema": "other"}, "schema field contradict each other"),
        ({"schema": "http"}, "host field is empty"),
        ({"host": "h", "schema": "http://other.example/model"}, "put a URL into its host field"),
        ({"host": "h", "schema": "ftp://"}, "put a URL into its host field"),
        ({"host": "h", "port": 0}, "port must be a number"),
        ({"host": "h", "port": 65536}, "port must be a number"),
        ({"host": "h", "port": -1}, "port must be a number"),
        ({"host": "h", "port": "http"}, "port must be a number"),
        ({"host": "h:"}, "its host must be"),
        ({"host": "http:"}, "its host must be"),
        ({"host": "http:/127.0.0.1"}, "its host must be"),
        ({"host": "//127.0.0.1/model"}, "its host must be"),
        ({"host": "http%3A%2F%2F127.0.0.1%3A8088%2Fmodel"}, "its host must be"),
        ({"host": "https://odirouter.ai\\.evil.example/model"}, "its host must be"),
        ({"host": "https://a.example,b.example/model"}, "its host must be"),
        ({"host": "https://:8088/model"}, "its host must be"),
        ({"host": "https://[127.0.0.1]/model"}, "its host must be"),
        ({"host": "http://[fe80::1%25eth0]/model"}, "its host must be"),
        ({"host": "1:2:3"}, "its host must be"),
        ({"host": "odirouter://host/model"}, "its host must be"),
        ({"host": "h", "schema": "model?key=1"}, "its host must be"),
        ({"host": "h", "schema": "model#top"}, "its host must be"),
        ({"host": "h", "schema": "mo del"}, "its host must be"),
    ],
    ids=str,
)
def test_contradicting_fields_are_refused(fields: Fields, message: str) -> None:
    with pytest.raises(ValueError, match=r"^its ") as caught:
        base_url(fields)

    assert message in str(caught.value)


class TestWhoGetsTheKey:
    """Real servers: the one that the connection names, and one that must never be reached."""

    @pytest.fixture
    def named(self, serve: Serve) -> RawServer:
        return serve(lambda exchange: exchange.answer_json(IN_QUEUE))

    @pytest.fixture
    def other(self, serve: Serve) -> RawServer:
        return serve(lambda exchange: exchange.answer_json(IN_QUEUE))

    @pytest.fixture(params=["environment", "json", "uri"])
    def stored(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Fields], None]:
        """Writes a connection in each form that Airflow itself writes."""

        def store(fields: Fields) -> None:
            document = {"conn_type": "odirouter", "password": KEY, **fields}
            connection = StoredConnection(conn_id="mine", **document)
            texts = {"environment": json.dumps(document), "json": connection.as_json(), "uri": connection.get_uri()}
            monkeypatch.setenv("AIRFLOW_CONN_MINE", texts[request.param])

        return store

    @pytest.mark.filterwarnings("ignore:.*noload.* loader strategy")  # Airflow 3.2's own.
    @pytest.mark.parametrize(
        "fields",
        [
            {"host": "http://127.0.0.1:{named}/model"},
            {"host": "http://127.0.0.1:{named}/model/"},
            {"host": "HTTP://127.0.0.1:{named}/model"},
            {"host": "http://127.0.0.1", "port": "named", "schema": "model"},
            {"host": "http://127.0.0.1/model", "port": "named"},
            {"host": "http://127.0.0.1:{named}", "port": "named", "schema": "model"},
            {"host": "http://127.0.0.1:{named}", "schema": "model"},
            {"host": "127.0.0.1", "port": "named", "schema": "http"},
            {"host": "127.0.0.1:{named}", "schema": "http"},
            {"host": "127.0.0.1:{named}/model", "schema": "http"},
        ],
        ids=str,
    )
    async def test_only_the_host_that_the_test_button_names_gets_it(
        self, stored: Callable[[Fields], None], named: RawServer, other: RawServer, fields: Fields
    ) -> None:
        stored(filled(fields, named, other))
        hook = OdiRouterHook("mine")

        assert hook.test_connection() == (True, f"OdiRouter accepts the API key at {named.base_url}.")
        await hook.aget_status("e", "mmsu_1")

        assert {received.headers["authorization"] for received in named.received} == {f"Bearer {KEY}"}
        assert {received.headers["host"] for received in named.received} == {f"127.0.0.1:{named.port}"}
        assert all(received.target.startswith("/model/v1/queue/") for received in named.received)
        assert len(named.received) == 2
        assert other.connections == 0

    @pytest.mark.filterwarnings("ignore:.*noload.* loader strategy")  # Airflow 3.2's own.
    @pytest.mark.parametrize(
        "fields",
        [
            {"host": "http://127.0.0.1:{named}/model", "port": "other"},
            {"host": "127.0.0.1:{named}", "port": "other", "schema": "http"},
            {"host": "http://127.0.0.1:{named}/model", "schema": "https"},
            {"host": "http://127.0.0.1:{named}/model", "schema": "http://127.0.0.1:{other}/model"},
            {"host": "http://127.0.0.1:{named}/model", "login": "me"},
            {"host": "http://127.0.0.1:{named}/model", "extra": '{"verfiy": "false"}'},
        ],
        ids=str,
    )
    async def test_no_host_gets_it_if_the_connection_contradicts_itself(
        self, stored: Callable[[Fields], None], named: RawServer, other: RawServer, fields: Fields
    ) -> None:
        stored(filled(fields, named, other))
        hook = OdiRouterHook("mine")

        with pytest.raises(ConnectionSettingsError, match="connection 'mine' cannot be used"):
            hook.submit("e", {})
        with pytest.raises(ConnectionSettingsError, match="connection 'mine' cannot be used"):
            await hook.aget_status("e", "mmsu_1")
        assert hook.test_connection()[0] is False
        assert (named.connections, other.connections) == (0, 0)

    @pytest.mark.parametrize(
        "uri",
        [
            "odirouter://http://:{key}@127.0.0.1:{port}/model",
            "odirouter://HTTP://:{key}@127.0.0.1:{port}/model/",
            "odirouter://:{key}@http%3A%2F%2F127.0.0.1:{port}/model",
            "odirouter://:{key}@http%3A%2F%2F127.0.0.1%3A{port}%2Fmodel",
            "odirouter://http://:{key}@127.0.0.1%3A{port}%2Fmodel",
            "odirouter://:{key}@127.0.0.1:{port}/http",
            "odirouter://:{key}@127.0.0.1%3A{port}/http",
            "odirouter://http://:{key}@127.0.0.1:{port}/model?timeout=5&verify=false&allow_private_downloads=true",
            "odirouter://http://:{key}@127.0.0.1:{port}/model?__extra__=%7B%22timeout%22%3A+5%7D",
        ],
    )
    def test_a_uri_can_name_plain_http_in_all_forms(
        self, uri: str, named: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_MINE", uri.format(key=KEY, port=named.port))

        assert OdiRouterHook("mine").test_connection() == (
            True,
            f"OdiRouter accepts the API key at {named.base_url}.",
        )
        assert named.received[0].headers["authorization"] == f"Bearer {KEY}"

    @pytest.mark.parametrize("kind", ["odirouter+http", "odirouter-http", "http", "https"])
    def test_a_uri_whose_scheme_would_be_ignored_is_refused(
        self, kind: str, named: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_MINE", f"{kind}://:{KEY}@127.0.0.1:{named.port}/model")

        with pytest.raises(ConnectionSettingsError, match="odirouter://http://:KEY@host/model") as caught:
            OdiRouterHook("mine").settings  # noqa: B018
        assert KEY not in str(caught.value)


def filled(fields: Fields, named: RawServer, other: RawServer) -> Fields:
    ports = {"named": named.port, "other": other.port}
    return {
        name: ports.get(value, value.format(**ports)) if name != "extra" else value for name, value in fields.items()
    }


class TestPlainHttp:
    """A host without TLS, while the connection expects TLS."""

    MEANT = "should the host begin with http://"

    @pytest.fixture
    def plain(self) -> Iterator[Callable[[bytes], OdiRouterHook]]:
        """Starts a host that sends something to each client, and closes the connection."""
        with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listener:

            def serve(answer: bytes) -> None:
                with suppress(OSError):  # the listener ends, or the client closes first
                    while True:
                        peer, _ = listener.accept()
                        with peer, suppress(OSError):
                            peer.recv(4096)
                            peer.sendall(answer)
                            peer.shutdown(socket.SHUT_RDWR)

            def start(answer: bytes) -> OdiRouterHook:
                threading.Thread(target=serve, args=(answer,), daemon=True).start()
                port = listener.getsockname()[1]
                patch.setenv("AIRFLOW_CONN_MINE", f"odirouter://:{KEY}@127.0.0.1:{port}/model")
                return OdiRouterHook("mine")

            yield start
            listener.shutdown(socket.SHUT_RDWR)

    @pytest.mark.usefixtures("pauses")
    @pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b""])
    def test_the_error_suggests_plain_http(self, plain: Callable[[bytes], OdiRouterHook], answer: bytes) -> None:
        hook = plain(answer)

        with pytest.raises(NotSentError, match=self.MEANT):
            hook.submit("e", {})
        assert self.MEANT in hook.test_connection()[1]

    async def test_the_error_in_the_triggerer_suggests_plain_http(
        self, plain: Callable[[bytes], OdiRouterHook]
    ) -> None:
        hook = plain(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        with pytest.raises(NoAnswerError, match=self.MEANT):
            await hook.aget_status("e", "mmsu_1")
