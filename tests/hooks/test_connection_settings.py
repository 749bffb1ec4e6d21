"""The settings of a connection in each form that Airflow accepts, and the values that are refused."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from airflow.models.connection import Connection as StoredConnection
from airflow.sdk import Connection

from airflow_provider_odirouter.errors import ConnectionNotFoundError, ConnectionSettingsError
from airflow_provider_odirouter.get_provider_info import CONNECTION_TYPE
from airflow_provider_odirouter.hooks.connection import ConnectionSettings
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

KEY = "sk-the-secret-key-of-these-tests"


def settings_of(extra: object = None, **fields: Any) -> ConnectionSettings:
    text = extra if isinstance(extra, str) or extra is None else json.dumps(extra)
    connection = Connection(conn_id="mine", conn_type="odirouter", **{"password": KEY, "extra": text, **fields})
    return ConnectionSettings.from_connection(connection)


class TestType:
    """The secret of another service's connection must not be sent to this one."""

    @pytest.mark.parametrize("conn_type", ["slack", "aws", "openai", "Odirouter "])
    def test_a_connection_of_another_service_is_refused(self, conn_type: str) -> None:
        connection = Connection(conn_id="mine", conn_type=conn_type, password=KEY)
        with pytest.raises(ConnectionSettingsError, match=r"'mine' cannot be used: its type is .*, not 'odirouter'"):
            ConnectionSettings.from_connection(connection)

    @pytest.mark.parametrize("conn_type", ["", "generic", "odirouter"])
    def test_one_without_a_type_of_its_own_is_used(self, conn_type: str) -> None:
        connection = Connection(conn_id="mine", conn_type=conn_type, password=KEY)
        assert ConnectionSettings.from_connection(connection).api_key == KEY


class TestBaseUrl:
    @pytest.mark.parametrize("host", [None, "", "  "])
    def test_is_the_documented_one_if_the_host_is_empty(self, host: str | None) -> None:
        assert settings_of(host=host).base_url == "https://odirouter.ai/model"

    @pytest.mark.parametrize(
        ("host", "base_url"),
        [
            ("https://api.odirouter.ai/model", "https://api.odirouter.ai/model"),
            ("https://api.odirouter.ai/model/", "https://api.odirouter.ai/model"),
            ("https://api.odirouter.ai/model///", "https://api.odirouter.ai/model"),
            ("  https://api.odirouter.ai/model\n", "https://api.odirouter.ai/model"),
            ("https://gateway.example/some/deep/model", "https://gateway.example/some/deep/model"),
            ("https://gateway.example", "https://gateway.example"),
            ("http://127.0.0.1:8088/model", "http://127.0.0.1:8088/model"),
            ("http://[::1]:8088/model", "http://[::1]:8088/model"),
            ("api.odirouter.ai", "https://api.odirouter.ai/model"),
            ("api.odirouter.ai/", "https://api.odirouter.ai/model"),
            ("api.odirouter.ai:8443", "https://api.odirouter.ai:8443/model"),
            ("api.odirouter.ai/model", "https://api.odirouter.ai/model"),
            ("gateway.example/some/model/", "https://gateway.example/some/model"),
        ],
    )
    def test_comes_from_the_host(self, host: str, base_url: str) -> None:
        assert settings_of(host=host).base_url == base_url

    @pytest.mark.parametrize(
        ("fields", "base_url"),
        [
            ({"port": 8443}, "https://api.odirouter.ai:8443/model"),
            ({"schema": "v2/model"}, "https://api.odirouter.ai/v2/model"),
            ({"schema": "/model/"}, "https://api.odirouter.ai/model"),
            ({"port": 8443, "schema": "other"}, "https://api.odirouter.ai:8443/other"),
        ],
    )
    def test_takes_port_and_path_of_the_short_form(self, fields: dict[str, Any], base_url: str) -> None:
        assert settings_of(host="api.odirouter.ai", **fields).base_url == base_url

    @pytest.mark.parametrize(
        "host",
        [
            "ftp://odirouter.ai/model",
            "file:///etc/passwd",
            "https://",
            "https:///model",
            "https://user:password@odirouter.ai/model",
            "https://user@odirouter.ai/model",
            "user:password@odirouter.ai",
            "https://odirouter.ai/model?key=1",
            "https://odirouter.ai/model#top",
            "https://odirouter.ai:port/model",
            "https://odirouter.ai:99999999/model",
            "https://odi router.ai/model",
            "https://odirouter.ai/mo\ndel",
            "https://[::1/model",
            "https://xn--/model",
        ],
    )
    def test_is_refused_if_it_is_invalid(self, host: str) -> None:
        with pytest.raises(ConnectionSettingsError, match="connection 'mine' cannot be used: its host") as caught:
            settings_of(host=host)

        assert "password" not in str(caught.value)

    @pytest.mark.parametrize("port", ["", ":port"])
    def test_a_key_that_was_put_into_the_host_is_not_shown(self, port: str) -> None:
        with pytest.raises(ConnectionSettingsError) as caught:
            settings_of(host=f"https://:{KEY}@odirouter.ai{port}/model")

        assert KEY not in str(caught.value)


class TestKey:
    @pytest.mark.parametrize("key", [KEY, f" {KEY}", f"{KEY}\n", f"\t{KEY}\r\n"])
    def test_white_space_around_it_is_removed(self, key: str) -> None:
        assert settings_of(password=key).api_key == KEY

    @pytest.mark.parametrize("key", [None, "", "   ", "\n"])
    def test_is_required(self, key: str | None) -> None:
        with pytest.raises(ConnectionSettingsError, match="password field"):
            settings_of(password=key)

    @pytest.mark.parametrize(
        "key", ["sk-two words", "sk-two\nlines", "sk-two\r\nX-Evil: 1", "sk-\0", "sk-ключ", "sk-…"]
    )
    def test_is_refused_but_not_shown_if_it_is_invalid(self, key: str) -> None:
        with pytest.raises(ConnectionSettingsError, match="characters that an API key cannot have") as caught:
            settings_of(password=key)

        assert "sk-" not in str(caught.value)

    def test_is_not_shown_by_the_settings(self) -> None:
        assert KEY not in repr(settings_of())

    def test_is_not_shown_by_the_hook(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_ODIROUTER_DEFAULT", f"odirouter://:{KEY}@")
        hook = OdiRouterHook()

        assert hook.settings.api_key == KEY
        assert KEY not in repr(hook) + str(hook) + repr(hook.__getstate__())


class TestTimeout:
    @pytest.mark.parametrize("value", [None, ""])
    def test_is_a_minute_by_default(self, value: object) -> None:
        assert settings_of({"timeout": value}).timeout == 60
        assert settings_of().timeout == 60

    @pytest.mark.parametrize(("value", "timeout"), [(5, 5), (0.5, 0.5), ("90", 90), (" 2.5 ", 2.5), (3600, 3600)])
    def test_is_a_number_of_seconds_or_its_text(self, value: object, timeout: float) -> None:
        assert settings_of({"timeout": value}).timeout == timeout

    @pytest.mark.parametrize("value", [0, -1, 3601, "nan", "inf", "soon", [5], {"seconds": 5}, "1e999"])
    def test_is_refused_if_it_is_invalid(self, value: object) -> None:
        with pytest.raises(ConnectionSettingsError, match="timeout must be seconds, above 0 and at most 3600"):
            settings_of({"timeout": value})

    @pytest.mark.parametrize("seconds", [-1, 0, 0.001, 60, 3600, 3600.5, 1e9])
    def test_the_form_takes_what_the_hook_takes(self, seconds: float) -> None:
        schema = CONNECTION_TYPE["conn-fields"]["timeout"]["schema"]
        try:
            hook_takes_it = settings_of({"timeout": seconds}).timeout == seconds
        except ConnectionSettingsError:
            hook_takes_it = False

        assert jsonschema.Draft7Validator(schema).is_valid(seconds) is hook_takes_it


class TestVerify:
    @pytest.mark.parametrize("value", [None, "", True, "true", "True", " TRUE ", 1, "1", "yes"])
    def test_is_true_by_default_and_in_each_spelling(self, value: object) -> None:
        assert settings_of({"verify": value}).verify is True

    @pytest.mark.parametrize("value", [False, "false", "False", " FALSE ", 0, "0", "no"])
    def test_is_false_in_each_spelling(self, value: object) -> None:
        settings = settings_of({"verify": value})

        assert settings.verify is False
        assert settings.ssl_context().verify_mode is ssl.CERT_NONE

    def test_is_a_file_of_certificates(self, tmp_path: Path, authority: Path) -> None:
        assert settings_of({"verify": str(authority)}).verify == str(authority)

    @pytest.mark.parametrize("value", ["maybe", "/no/such/file.pem", ["a"], {}, "/"])
    def test_is_refused_if_it_is_neither(self, value: object) -> None:
        with pytest.raises(ConnectionSettingsError, match="verify must be true, false or a CA file"):
            settings_of({"verify": value})

    @pytest.mark.parametrize("content", [b"", b"This is no certificate.", b"\x89PNG\r\n"])
    def test_is_refused_if_the_file_holds_no_certificate(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "authority.pem"
        file.write_bytes(content)

        with pytest.raises(ConnectionSettingsError, match=r"authority\.pem"):
            settings_of({"verify": str(file)}).ssl_context()


class TestExtra:
    @pytest.mark.parametrize("extra", ["{", "timeout=5", "[]", '"text"', "5"])
    def test_is_refused_if_it_is_not_a_json_object(self, extra: str) -> None:
        with pytest.raises(ConnectionSettingsError, match=r"its extra is not (a )?JSON"):
            settings_of(extra)

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("Timeout", "timeout"),
            ("time_out", "timeout"),
            ("verfiy", "verify"),
            ("ssl_verify", "verify"),
            ("allow-private-downloads", "allow_private_downloads"),
            ("allow_private_download", "allow_private_downloads"),
        ],
    )
    def test_a_misspelt_name_is_refused_and_the_nearest_suggested(self, name: str, nearest: str) -> None:
        with pytest.raises(ConnectionSettingsError) as caught:
            settings_of({name: 5})

        assert f"its extra {name!r} is not known; did you mean {nearest!r}?" in str(caught.value)
        assert "Known extras: timeout, verify, allow_private_downloads, prices." in str(caught.value)

    def test_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(ConnectionSettingsError, match=r"its extra 'team' is not known\. Known extras: timeout"):
            settings_of({"team": "art", "timeout": 7})

    def test_an_api_key_in_its_names_is_not_shown(self) -> None:
        with pytest.raises(ConnectionSettingsError, match="contains the API key") as caught:
            settings_of({KEY: ""})

        assert KEY not in str(caught.value)

    @pytest.mark.parametrize(
        "extra",
        [
            {"__extra__": '{"timeout": 7}'},
            {"__extra__": {"timeout": 7}},
            {"__extra__": "", "timeout": 7},
            {"extra__odirouter__timeout": 7, "extra__odirouter__verify": None},
            {"timeout": 7, "verify": "", "allow_private_downloads": None},
        ],
        ids=str,
    )
    def test_airflows_own_spellings_are_read(self, extra: object) -> None:
        assert settings_of(extra).timeout == 7

    def test_it_may_be_an_object_as_airflow_32_returns_for_a_uri(self) -> None:
        connection = Connection(conn_id="mine", conn_type="odirouter", password=KEY)
        connection.extra = {"timeout": 7}  # type: ignore[assignment]

        assert ConnectionSettings.from_connection(connection).timeout == 7


class TestPrivateDownloads:
    @pytest.mark.parametrize("value", [None, "", False, "false", "False", " NO ", 0, "0", "off", "n", "f"])
    def test_are_not_allowed_by_default_and_in_each_spelling(self, value: object) -> None:
        assert settings_of({"allow_private_downloads": value}).allow_private_downloads is False
        assert settings_of().allow_private_downloads is False

    @pytest.mark.parametrize("value", [True, "true", "True", " YES ", 1, "1", "on", "y", "t"])
    def test_are_allowed_in_each_spelling(self, value: object) -> None:
        assert settings_of({"allow_private_downloads": value}).allow_private_downloads is True

    @pytest.mark.parametrize("value", ["maybe", 2, "10.0.0.0/8", ["true"], {}])
    def test_anything_else_is_refused(self, value: object) -> None:
        with pytest.raises(ConnectionSettingsError, match="allow_private_downloads must be true or false"):
            settings_of({"allow_private_downloads": value})


class TestLogin:
    @pytest.mark.parametrize("password", [KEY, None])
    def test_a_login_is_refused_but_not_shown(self, password: str | None) -> None:
        with pytest.raises(ConnectionSettingsError, match="it has a login") as caught:
            settings_of(login="sk-login", password=password)

        assert "sk-login" not in str(caught.value)

    @pytest.mark.parametrize("login", [None, "", "  "])
    def test_an_empty_login_is_accepted(self, login: str | None) -> None:
        assert settings_of(login=login).api_key == KEY


class TestForms:
    """The forms in which Airflow accepts a connection."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (f"odirouter://:{KEY}@", ConnectionSettings(KEY)),
            (f"odirouter://:{KEY}@/?timeout=5&verify=false", ConnectionSettings(KEY, timeout=5, verify=False)),
            (f"odirouter://:{KEY}@api.odirouter.ai", ConnectionSettings(KEY, "https://api.odirouter.ai/model")),
            (
                f"odirouter://:{KEY}@api.odirouter.ai:8443/v2",
                ConnectionSettings(KEY, "https://api.odirouter.ai:8443/v2"),
            ),
            (
                f"odirouter://:{KEY}@http%3A%2F%2F127.0.0.1%3A8088%2Fmodel",
                ConnectionSettings(KEY, "http://127.0.0.1:8088/model"),
            ),
            ("odirouter://:sk%2Fwith%2Bsigns%3D@", ConnectionSettings("sk/with+signs=")),
            (json.dumps({"conn_type": "odirouter", "password": KEY}), ConnectionSettings(KEY)),
            (
                json.dumps({"conn_type": "odirouter", "password": KEY, "host": "http://127.0.0.1:8088/model"}),
                ConnectionSettings(KEY, "http://127.0.0.1:8088/model"),
            ),
            (
                json.dumps({"conn_type": "odirouter", "password": KEY, "extra": {"timeout": 5, "verify": False}}),
                ConnectionSettings(KEY, timeout=5, verify=False),
            ),
            (
                json.dumps({"conn_type": "odirouter", "password": KEY, "extra": '{"timeout": "5", "verify": "false"}'}),
                ConnectionSettings(KEY, timeout=5, verify=False),
            ),
        ],
    )
    def test_an_environment_variable_in_each_form_is_read(
        self, monkeypatch: pytest.MonkeyPatch, text: str, expected: ConnectionSettings
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_MINE", text)

        assert OdiRouterHook("mine").settings == expected

    @pytest.mark.filterwarnings("ignore:.*noload.* loader strategy")  # Airflow 3.2's own.
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"host": "https://api.odirouter.ai/model"},
            {"host": "http://127.0.0.1:8088/model"},
            {"host": "api.odirouter.ai"},
            {"host": "api.odirouter.ai/some/model"},
            {"host": "api.odirouter.ai", "port": 8443, "schema": "v2/model"},
            {"host": "https://gateway.example/mödel", "extra": '{"timeout": 5}'},
            {"extra": '{"timeout": "5", "verify": "false"}'},
            {"extra": '{"timeout": 5, "verify": false}'},
        ],
    )
    def test_a_uri_that_airflow_built_gives_the_same_settings(
        self, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
    ) -> None:
        connection = StoredConnection(conn_id="mine", conn_type="odirouter", password="sk/with+signs=", **fields)
        monkeypatch.setenv("AIRFLOW_CONN_MINE", connection.get_uri())

        assert OdiRouterHook("mine").settings == ConnectionSettings.from_connection(connection)

    def test_a_missing_connection_is_named(self) -> None:
        with pytest.raises(ConnectionNotFoundError, match="'no_such_connection'") as caught:
            OdiRouterHook("no_such_connection").settings  # noqa: B018

        assert caught.value.retry_helps

    async def test_a_missing_connection_is_named_in_the_triggerer(self) -> None:
        with pytest.raises(ConnectionNotFoundError, match="'no_such_connection'"):
            await OdiRouterHook("no_such_connection").aget_status("nano_banana_2", "mmsu_1")

    def test_the_connection_is_read_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_MINE", f"odirouter://:{KEY}@")
        hook = OdiRouterHook("mine")
        before = hook.settings
        monkeypatch.delenv("AIRFLOW_CONN_MINE")

        assert hook.settings is before
        assert hook.with_own_client().settings is before
