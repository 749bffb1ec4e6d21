"""
Hides secrets in logs, errors and answers, whatever spelling they come back in.

:class:`Secret` hides a secret that the provider holds. :class:`Redactor` hides secrets in what a host sends: after
decoding, because a host may escape its echo in any way, and before any text is cut, because a part of a secret is a
secret, too. :func:`without_traceback` hides secrets in errors: frames and causes hold the arguments of libraries.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote_plus, unquote

from airflow_provider_odirouter.errors import OdiRouterError

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

MASK = "***"
MIN_SECRET_LENGTH = 5
"""Characters, as in Airflow: hiding shorter ones would hide much ordinary text."""
MAX_UNESCAPES = 3
"""How often a text is unescaped: a gateway may escape a text that is already escaped."""
ESCAPE_SEQUENCE = re.compile(
    # Every repetition has a limit: a host may send a million backslashes.
    r"(?P<percent>(?:%(?:25){0,4}[0-9a-f]{2})+)"
    r"|\\{1,8}(?:u(?P<unicode>[0-9a-f]{4})|u\{(?P<braces>[0-9a-f]{1,6})\}|x(?P<hex>[0-9a-f]{2}))"
    r"|\\{1,8}(?P<character>[nrt\"'/\\])",
    re.IGNORECASE,
)
WHITESPACE_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
PASSWORD_IN_URL = re.compile(
    # Not a port. Then the characters that a password may have, or any others, since people forget to encode them.
    r"(://[^/?#:@\s]{0,1000}):(?!\d{1,5}(?:[/?#\s'\"]|$))(?:[^/?#\n]{0,1000}@|\S{0,1000}?@)"
)
_WEB_URL = re.compile(r"https?://[^\s'\"<>]+", re.IGNORECASE)
_PARTS_OF_WEB_URL = re.compile(r"(https?://)(?:([^/?#]*)@)?([^?#]*)(?:([?#])(.*))?", re.IGNORECASE | re.DOTALL)
# Airflow's own list is shorter, and before 3.2 it does not hide the values of a connection's extras.
SECRET_FIELD_NAME = re.compile(
    r"secret|token|key|pass|pwd|credential|signature|authorization|connection_string|\bsas\b", re.IGNORECASE
)


class Secret:
    """
    A text that ``repr``, ``str`` and formatting never show. Only the line that sends it calls :meth:`reveal`.

    It equals the text that it holds.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str | Secret) -> None:
        self._text: str = text.reveal() if isinstance(text, Secret) else text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __eq__(self, other: object) -> bool:
        return self._text == (other.reveal() if isinstance(other, Secret) else other)

    def __hash__(self) -> int:
        return hash(self._text)


class Redactor:
    """
    Hides secrets in texts, JSON values, bodies and errors.

    :param secrets: In plain text; those shorter than :data:`MIN_SECRET_LENGTH` are not hidden.
    """

    def __init__(self, secrets: Iterable[str | Secret]) -> None:
        self._secrets = frozenset(Secret(secret) for secret in secrets)
        hidden = [secret.reveal() for secret in self._secrets if len(secret.reveal()) >= MIN_SECRET_LENGTH]
        spellings = {spelling.lower() for secret in hidden for spelling in _spellings(secret)}
        self._spellings = tuple(sorted(spellings, key=len, reverse=True))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Compiled when a secret is found: each download has a redactor of its own, and most find none.
        return re.compile("|".join(map(re.escape, self._spellings)), re.IGNORECASE)

    def with_secrets(self, *secrets: str | Secret) -> Redactor:
        """Return a redactor that hides these secrets, too."""
        return Redactor((*self._secrets, *secrets))

    def redact_text(self, text: str) -> str:
        """Return a text without the secrets; if only its unescaped form shows them, that form."""
        redacted = decoded = self._mask(text)
        for _ in range(MAX_UNESCAPES):
            if not _may_be_escaped(before := decoded):
                break
            for unescape in (_unescape, html.unescape):
                decoded = unescape(decoded)
                if (masked := self._mask(decoded)) != decoded:
                    redacted = decoded = masked
            if decoded == before:
                break
        return redacted

    def redact_error(self, error: BaseException) -> str:
        """Return an error's text without the secrets, and without the password of any URL."""
        return without_password(self.redact_text(str(error)))

    def redact_body(self, body: bytes) -> bytes:
        """Return the body of an answer without the secrets: JSON as JSON, anything else as UTF-8."""
        text = body.decode(json.detect_encoding(body), "replace")
        if self._mask(text) == text and not _may_be_escaped(text):
            return body
        try:
            document = json.loads(body.decode(json.detect_encoding(body), "surrogatepass"))
            return json.dumps(self.redact_value(document)).encode()
        except (ValueError, RecursionError):
            return self.redact_text(text).encode(errors="replace")

    def redact_value(self, value: Any) -> Any:
        """Return a JSON value without the secrets in its texts, keys and numbers."""
        match value:
            case str():
                return self.redact_text(value)
            case dict():
                return {self.redact_text(key): self.redact_value(item) for key, item in value.items()}
            case list():
                return [self.redact_value(item) for item in value]
            case int() if self._mask(str(value)) != str(value):
                return MASK
        return value

    def _mask(self, text: str) -> str:
        lower = text.lower()
        return self._pattern.sub(MASK, text) if any(spelling in lower for spelling in self._spellings) else text


def without_traceback(error: E) -> E:
    """Return an error without its frames and causes. Raise it outside of ``except``, which would add a cause again."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def raises_without_traceback(kind: type[Exception] = OdiRouterError) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """
    Make a function raise its errors :func:`without_traceback`.

    :param kind: The errors whose text needs no traceback.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except kind as error:
                failure = without_traceback(error)
            del args, kwargs  # The new traceback shows this frame.
            raise failure

        return call

    return decorate


def without_password(text: str) -> str:
    """Hide the passwords of the URLs in a text, also if a URL was given as a connection id."""
    return PASSWORD_IN_URL.sub(rf"\1:{MASK}@", text)


def shorten_url(url: str) -> str:
    """
    Return a URL for people: without the user, query and fragment of a web address, each of which may be a secret.

    Of the URL of a store, only a password is hidden.
    """
    url = without_password(url)
    parts = _PARTS_OF_WEB_URL.fullmatch(url)
    if not parts:
        return url
    user, query = (f"{MASK}@" if parts[2] else ""), (f"{parts[4]}{MASK}" if parts[5] else parts[4] or "")
    return f"{parts[1]}{user}{parts[3]}{query}"


def shorten_urls(value: Any) -> Any:
    """Return a JSON value with the web addresses in its texts shortened, see :func:`shorten_url`."""
    match value:
        case str():
            return _WEB_URL.sub(lambda found: shorten_url(found[0]), value)
        case dict():
            return {name: shorten_urls(item) for name, item in value.items()}
        case list() | tuple():
            return [shorten_urls(item) for item in value]
    return value


def web_urls_in(text: str) -> list[str]:
    """Return the web addresses in a text."""
    return _WEB_URL.findall(text)


def secrets_in_web_url(url: str) -> Iterator[str]:
    """Yield what :func:`shorten_url` hides in a web address."""
    if parts := _PARTS_OF_WEB_URL.fullmatch(url):
        yield from filter(None, (parts[2], (parts[2] or "").partition(":")[2], parts[5]))


def secrets_in_url(url: str) -> Iterator[str]:
    """Yield the secrets of a URL: its password, and user and password as ``Proxy-Authorization`` sends them."""
    rest = url.partition("://")[2] or url
    userinfo = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
    if not userinfo and PASSWORD_IN_URL.match(f"://{rest}"):
        userinfo = rest.partition("@")[0]
    user, _, password = userinfo.partition(":")
    # A character that should have been encoded ends it early for a library, which then quotes the rest as the host.
    for secret in filter(None, (userinfo, password or user, *re.split("[/?#]", userinfo))):
        yield from (secret, unquote(secret))


def secrets_in_extra(extra: object, name: str = "") -> Iterator[str]:
    """
    Yield the secrets in the extra of a connection: fields whose names say so, and the passwords of URLs.

    :param name: The name of the field that holds the value.
    """
    match extra:
        case Mapping():
            for key, value in extra.items():
                yield from secrets_in_extra(value, str(key))
        case list() | tuple():
            for value in extra:
                yield from secrets_in_extra(value, name)
        case str():
            if "://" in extra:
                yield from secrets_in_url(extra)
            if SECRET_FIELD_NAME.search(name):
                yield extra
                yield from secrets_in_extra(_fields_of(extra))
        case int() if SECRET_FIELD_NAME.search(name) and not isinstance(extra, bool):
            yield str(extra)


def _fields_of(text: str) -> object:
    """Return the fields of a key file in JSON or of a connection string; any other text has none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        fields = (field.partition("=") for field in text.split(";"))
        return {name.strip(): value for name, equals, value in fields if equals and ";" in text}


def _spellings(secret: str) -> Iterator[str]:
    """Yield the encodings of a secret that unescaping does not undo."""
    data = secret.encode(errors="surrogatepass")
    yield from (secret, quote_plus(secret, errors="replace"), data.hex(), data.decode("latin-1"))
    for before in range(3):
        # In the middle of a longer text: without the characters that also encode neighbouring bytes.
        encoded = base64.b64encode(bytes(before) + data).decode()
        whole = encoded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield from (whole, whole.replace("+", "-").replace("/", "_"))


def _may_be_escaped(text: str) -> bool:
    return "%" in text or "\\" in text or "&" in text


def _unescape(text: str) -> str:
    """Undo the escapes of URLs, JSON and programming languages, once."""
    return ESCAPE_SEQUENCE.sub(_decode_escape, text)


def _decode_escape(match: re.Match[str]) -> str:
    if percent := match["percent"]:
        if "%25" in percent:
            percent = re.sub("%(?:25)+(?=[0-9a-f]{2})", "%", percent, flags=re.IGNORECASE)
        return bytes.fromhex(percent.replace("%", "")).decode(errors="replace")
    if code := match["unicode"] or match["braces"] or match["hex"]:
        return chr(min(int(code, 16), 0x10FFFF))
    return WHITESPACE_ESCAPES.get(match["character"].lower(), match["character"])
