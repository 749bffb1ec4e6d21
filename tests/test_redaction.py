"""Secrets are redacted in all spellings, and little else is redacted with them."""

from __future__ import annotations

import base64
import html
import json
import pickle
import traceback
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from airflow_provider_odirouter.errors import OdiRouterError
from airflow_provider_odirouter.redaction import (
    MASK,
    Redactor,
    Secret,
    raises_without_traceback,
    secrets_in_extra,
    secrets_in_url,
    secrets_in_web_url,
    shorten_url,
    shorten_urls,
    without_password,
    without_traceback,
)
from tests.shown import all_shown, chain_of

KEY = "sk-the/secret+key&of<these>tests=1"
"""It has characters that JSON, URLs, HTML and base64 escape."""


def each(spell: Callable[[int], str]) -> str:
    return "".join(spell(ord(sign)) for sign in KEY)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


SPELLINGS = {
    "as it is": KEY,
    "in capitals": KEY.upper(),
    "in small letters": KEY.lower(),
    "JSON, with slashes escaped": json.dumps(KEY).replace("/", "\\/"),
    "JSON, in numbers": each(lambda code: f"\\u{code:04x}"),
    "JSON, in large numbers": each(lambda code: f"\\u{code:04X}"),
    "JSON, some of it": KEY.replace("+", "\\u002B").replace("/", "\\/").replace("s", "\\u0073"),
    "JSON in JSON in JSON": json.dumps(json.dumps(json.dumps(KEY).replace("+", "\\u002b"))),
    "a programming language": each(lambda code: f"\\x{code:02x}"),
    "percent": quote(KEY, safe=""),
    "percent, in small letters": quote(KEY, safe="").lower(),
    "percent, all of it": each(lambda code: f"%{code:02X}"),
    "percent, twice": quote(quote(KEY, safe=""), safe=""),
    "a form": quote_plus(KEY),
    "HTML": html.escape(KEY),
    "HTML, twice": html.escape(html.escape(KEY)),
    "HTML, in numbers": each(lambda code: f"&#{code};"),
    "HTML, in hexadecimal numbers": each(lambda code: f"&#x{code:X};"),
    "HTML, in JSON": json.dumps(html.escape(KEY)).replace("&", "\\u0026"),
    "base64": encoded(KEY.encode()),
    "base64, for URLs": base64.urlsafe_b64encode(KEY.encode()).decode(),
    "base64, without its end": encoded(KEY.encode()).rstrip("="),
    "base64, behind one sign": encoded(f":{KEY}".encode()),
    "base64, as Basic": encoded(f"ab:{KEY}".encode()),
    "base64, in a sentence": encoded(f"Bearer {KEY} is wrong".encode()),
    "base64, percent": quote(encoded(KEY.encode()), safe=""),
    "hexadecimal": KEY.encode().hex(),
    "hexadecimal, in capitals": KEY.encode().hex().upper(),
}
PARTS = (
    "secret",
    "SECRET",
    "c2VjcmV0",
    "736563726574",
    "\\u0073\\u0065",
    "%73%65",
    "&#115;&#101;",
    "NlY3Jld",
    "zZWNyZX",
)
"""Parts of the key in each spelling, which must not be left over."""


@pytest.fixture
def redactor() -> Redactor:
    return Redactor([Secret(KEY)])


class TestSpellings:
    @pytest.mark.parametrize("name", SPELLINGS)
    def test_it_is_redacted_in_a_text(self, redactor: Redactor, name: str) -> None:
        shown = redactor.redact_text(f"The key {SPELLINGS[name]} is wrong.")

        assert MASK in shown
        assert shown.startswith("The key ")
        assert shown.endswith(" is wrong.")
        assert not [part for part in PARTS if part in shown]

    @pytest.mark.parametrize("name", SPELLINGS)
    def test_it_is_redacted_in_json_which_stays_json(self, redactor: Redactor, name: str) -> None:
        spelled = SPELLINGS[name]
        raw = json.dumps({"ok": "100 % & more", "a": [{"b": f"x {spelled}"}], spelled: 1, "n": 1.5})

        document = json.loads(redactor.redact_body(raw.encode()))

        assert document["ok"] == "100 % & more"
        assert document["n"] == 1.5
        assert MASK in document["a"][0]["b"]
        assert not [part for part in PARTS if part in json.dumps(document)]

    @pytest.mark.parametrize("name", ["JSON, with slashes escaped", "JSON, in numbers", "JSON, some of it"])
    def test_it_is_redacted_in_escaped_json(self, redactor: Redactor, name: str) -> None:
        raw = f'{{"error": "{SPELLINGS[name].strip(chr(34))}"}}'
        assert KEY not in raw

        assert json.loads(redactor.redact_body(raw.encode())) == {"error": MASK}

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
    def test_it_is_redacted_in_every_encoding_of_json(self, redactor: Redactor, encoding: str) -> None:
        assert json.loads(redactor.redact_body(json.dumps({"a": KEY}).encode(encoding))) == {"a": MASK}
        assert redactor.redact_body(f"<p>{KEY}".encode(encoding)).removeprefix(b"\xef\xbb\xbf") == f"<p>{MASK}".encode()

    def test_it_is_redacted_in_half_a_json_document(self, redactor: Redactor) -> None:
        raw = f'{{"error": "{SPELLINGS["JSON, in numbers"]}'

        assert redactor.redact_body(raw.encode()) == f'{{"error": "{MASK}'.encode()

    def test_a_number_may_be_a_key(self) -> None:
        body = Redactor(["1234567890"]).redact_body(b'{"code": 1234567890, "at": 5}')

        assert json.loads(body) == {"code": MASK, "at": 5}

    def test_it_is_redacted_in_json_that_is_nested_too_deeply(self, redactor: Redactor) -> None:
        raw = "[" * 100_000 + json.dumps(KEY) + "]" * 100_000

        assert b"secret" not in redactor.redact_body(raw.encode())

    def test_a_password_outside_ascii_is_redacted(self) -> None:
        password = "pässwörd ☃"
        redactor = Redactor([password])

        for spelled in (password, quote(password), quote_plus(password), json.dumps(password), html.escape(password)):
            assert MASK in redactor.redact_text(spelled)
        assert MASK in redactor.redact_text(password.encode().decode("latin-1"))

    def test_the_longest_secret_is_redacted_first(self) -> None:
        assert Redactor(["password", "password-of-all"]).redact_text("password-of-all") == MASK

    def test_with_secrets_hides_more_secrets(self, redactor: Redactor) -> None:
        assert redactor.with_secrets("signature=abc").redact_text(f"?signature=abc {KEY}") == f"?{MASK} {MASK}"
        assert redactor.redact_text("?signature=abc") == "?signature=abc"


class TestLittleElse:
    @pytest.mark.parametrize(
        "text",
        ["", "Model not allowed", "100 % & 5 &lt; 7 \\n C:\\new\\table %41", "https://cdn.example/a%20b.png?s=a%2Fb"],
    )
    def test_a_text_without_a_secret_is_not_changed(self, redactor: Redactor, text: str) -> None:
        assert redactor.redact_text(text) == text
        assert redactor.redact_body(text.encode()) == text.encode()

    def test_a_body_without_a_secret_is_not_changed(self, redactor: Redactor) -> None:
        raw = b'{"status" : "IN_QUEUE",\n "request_id": "mmsu_1", "n": 1.0, "big": 1e999}'

        assert redactor.redact_body(raw) == raw

    def test_json_values_without_a_secret_are_not_changed(self, redactor: Redactor) -> None:
        raw = '{"a": "\\u0041", "b": true, "c": null, "d": [1, 1.5, -0.0], "e": "\\ud800", "f": 1e999}'

        assert json.loads(redactor.redact_body(raw.encode())) == json.loads(raw)

    @pytest.mark.parametrize("secret", ["", "a", "key", "pass"])
    def test_a_short_secret_is_not_redacted(self, secret: str) -> None:
        assert Redactor([secret]).redact_text("a key to pass") == "a key to pass"

    def test_only_the_secret_part_of_a_word_is_redacted(self) -> None:
        assert Redactor(["image"]).redact_text("2 images of the service") == "2 ***s of the service"

    def test_many_unfinished_escapes_are_read_in_time(self, redactor: Redactor) -> None:
        for sign in ("\\", "%", "&", "%25", "&#", "\\u", "://a:"):
            redactor.redact_text(sign * 200_000)
            without_password(sign * 20_000)


class TestSecret:
    def test_only_reveal_shows_it(self) -> None:
        secret = Secret(KEY)

        assert secret.reveal() == KEY
        for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]!r}", "%s" % secret):  # noqa: UP031
            assert "secret+key" not in shown

    def test_it_can_be_compared_copied_and_pickled(self) -> None:
        assert Secret(KEY) == Secret(KEY) == KEY
        assert Secret(KEY) != Secret("other")
        assert Secret(KEY) != 5
        assert len({Secret(KEY), Secret(Secret(KEY))}) == 1
        assert pickle.loads(pickle.dumps(Secret(KEY))) == KEY


class TestUrls:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("s3://AKIA:secret@bucket/a", "s3://AKIA:***@bucket/a"),
            ("s3://AKIA:sec/ret+x@bucket/a", "s3://AKIA:***@bucket/a"),
            ("s3://AKIA:sec?ret#x@bucket/a", "s3://AKIA:***@bucket/a"),
            ("s3://AKIA:secr@et@bucket/a", "s3://AKIA:***@bucket/a"),
            ("s3://AKIA:12345@bucket/a", "s3://AKIA:***@bucket/a"),
            ("s3://:secret@bucket/a", "s3://:***@bucket/a"),
            ("s3://conn_id@bucket/a:b@c", "s3://conn_id@bucket/a:b@c"),
            ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
            ("http://127.0.0.1:8080/a@b", "http://127.0.0.1:8080/a@b"),
            ("to http://127.0.0.1:80 or me@x", "to http://127.0.0.1:80 or me@x"),
            ("url='http://u:secret@p:1', http://v:word2@q", "url='http://u:***@p:1', http://v:***@q"),
        ],
    )
    def test_a_password_in_a_url_is_hidden(self, text: str, shown: str) -> None:
        assert without_password(text) == shown

    def test_a_proxys_secrets_are_its_password_and_its_header(self) -> None:
        found = set(secrets_in_url("http://user:p%40ss%2Fword@proxy:3128"))

        assert found == {"user:p%40ss%2Fword", "user:p@ss/word", "p%40ss%2Fword", "p@ss/word"}
        sent = encoded(b"user:p@ss/word")
        assert MASK in Redactor(found).redact_text(f"Basic {sent}")

    @pytest.mark.parametrize("url", ["", "http://proxy:3128", "proxy", "localhost,127.0.0.1", "https://host/path@x"])
    def test_a_url_without_a_user_has_none(self, url: str) -> None:
        assert set(secrets_in_url(url)) == set()

    @pytest.mark.parametrize("url", ["http://token@proxy:3128", "token:@proxy", "http://token@proxy/a@b"])
    def test_a_user_without_a_password_is_a_secret(self, url: str) -> None:
        assert "token" in set(secrets_in_url(url))


class TestExtras:
    @pytest.mark.parametrize(
        ("extra", "secret"),
        [
            ({"aws_session_token": "the-token"}, "the-token"),
            ({"SECRET": "the-secret"}, "the-secret"),
            ({"deep": {"er": [{"api_key": "the-key"}]}}, "the-key"),
            ({"tokens": ["one", "the-other"]}, "the-other"),
            ({"password": 123456789}, "123456789"),
            ({"keyfile_dict": '{"private_key": "the-key", "type": "service_account"}'}, "the-key"),
            ({"connection_string": "AccountName=a;AccountKey=the-key==;Suffix=b"}, "the-key=="),
            ({"endpoint_url": "http://user:word@minio:9000"}, "word"),
            ({"sas": "the-signature"}, "the-signature"),
        ],
    )
    def test_secrets_are_found_by_their_names(self, extra: object, secret: str) -> None:
        assert secret in set(secrets_in_extra(extra))

    def test_other_fields_are_not_secrets(self) -> None:
        extra = {"region_name": "eu", "endpoint_url": "http://minio:9000", "verify": False, "n": 5, "x": None}

        assert set(secrets_in_extra(extra)) == set()


class TestBare:
    def test_an_error_has_neither_frames_nor_causes(self) -> None:
        def fail(header: str) -> None:
            try:
                int(header)
            except ValueError as error:
                raise OdiRouterError("What happened.") from error

        with pytest.raises(OdiRouterError) as caught:
            raises_without_traceback()(fail)(KEY)

        assert list(chain_of(caught.value)) == [caught.value]
        assert KEY not in all_shown(caught.value)
        assert "fail" not in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    def test_errors_of_another_class_are_not_changed(self) -> None:
        def fail() -> None:
            raise ValueError("a bug")

        with pytest.raises(ValueError, match="a bug") as caught:
            raises_without_traceback()(fail)()

        assert "fail" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    def test_it_is_the_same_error(self) -> None:
        error = OdiRouterError("What happened.", vendor="words", request_id="mmsu_1")

        assert without_traceback(error) is error
        assert str(error) == "What happened. OdiRouter says: “words”. Request: mmsu_1."


@pytest.mark.parametrize(
    ("url", "short"),
    [
        ("https://host/a.png", "https://host/a.png"),
        ("https://host:8080/a@b/c:d.png", "https://host:8080/a@b/c:d.png"),
        ("https://user:pw@host/a.png", "https://***@host/a.png"),
        ("https://user:p/w@host/a.png", "https://***@host/a.png"),
        ("https://user:p?w@host/a.png", "https://***@host/a.png"),
        ("HTTPS://token@host/a.png", "HTTPS://***@host/a.png"),
        ("https://host/a.png?sig=x y&b='c'", "https://host/a.png?***"),
        ("https://host/a.png?x@y", "https://host/a.png?***"),
        ("https://host/a.png#t", "https://host/a.png#***"),
        ("https://host/a.png?t#u", "https://host/a.png?***"),
        ("https://host/a.png?", "https://host/a.png?"),
        ("https://host?sig=x", "https://host?***"),
        ("s3://user:pw@bucket/what?.png#1", "s3://user:***@bucket/what?.png#1"),
        ("s3://conn@bucket/a.png", "s3://conn@bucket/a.png"),
        ("/data/a.png?x#y", "/data/a.png?x#y"),
    ],
)
def test_a_url_is_shortened_by_what_may_be_a_secret(url: str, short: str) -> None:
    assert shorten_url(url) == short
    assert shorten_url(short) == short


def test_all_that_is_hidden_in_a_web_address_is_a_secret() -> None:
    found = list(secrets_in_web_url("https://user:pw@host/a.png?sig=x&b=y#z"))
    assert found == ["user:pw", "pw", "sig=x&b=y#z"]
    assert list(secrets_in_web_url("https://host/a.png")) == list(secrets_in_web_url("s3://a:b@c/d?e")) == []


def test_addresses_in_texts_are_shortened_wherever_they_are() -> None:
    value = {"a": ["see https://h/x?sig=s3cret, or 'http://u:s3cret@h/y'", 1, None], "b": "https://h/?s3cret"}
    assert shorten_urls(value) == {"a": ["see https://h/x?*** or 'http://***@h/y'", 1, None], "b": "https://h/?***"}
