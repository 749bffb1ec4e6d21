"""
Hiding secrets in all that is shown, in whatever spelling they come back.

What goes out is hidden by its type, :class:`Secret`. What comes in is hidden by :class:`Redactor`: after decoding,
since a host may escape what it echoes in any way, and before anything is cut, since a part of a secret is one, too.
What went wrong in between is hidden by :func:`bare`: the frames and causes of an error hold what libraries were given.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote_plus, unquote

from airflow_provider_odirouter.errors import OdiRouterError

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

MASK = "***"
SHORTEST_SECRET = 5
"""Characters, as for Airflow: to hide a shorter one would hide much else."""
LAYERS = 3
"""How often a text is unescaped: what a gateway has escaped may have been escaped before."""
ESCAPED = re.compile(
    # Each bounded: a host may send a million backslashes.
    r"(?P<percent>(?:%(?:25){0,4}[0-9a-f]{2})+)"
    r"|\\{1,8}(?:u(?P<unicode>[0-9a-f]{4})|u\{(?P<braces>[0-9a-f]{1,6})\}|x(?P<hex>[0-9a-f]{2}))"
    r"|\\{1,8}(?P<sign>[nrt\"'/\\])",
    re.IGNORECASE,
)
WHITE_SPACE = {"n": "\n", "r": "\r", "t": "\t"}
PASSWORD_IN_URL = re.compile(
    # No port; and either no more than a user and a password may hold, or, since people forget to encode them, any sign.
    r"(://[^/?#:@\s]{0,1000}):(?!\d{1,5}(?:[/?#\s'\"]|$))(?:[^/?#\n]{0,1000}@|\S{0,1000}?@)"
)
# Airflow's own list does not know them all, and before 3.2 does not hide what a connection's extras hold.
NAME_OF_SECRET = re.compile(
    r"secret|token|key|pass|pwd|credential|signature|authorization|connection_string|\bsas\b", re.IGNORECASE
)


class Secret:
    """
    A text that is shown by no ``repr``, ``str`` or format: only :meth:`reveal` gives it out, on the line that sends it.

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
    Hides secrets.

    :param secrets: As they are; those that are shorter than :data:`SHORTEST_SECRET` are not hidden.
    """

    def __init__(self, secrets: Iterable[str | Secret]) -> None:
        self._secrets = frozenset(Secret(secret) for secret in secrets)
        hidden = [secret.reveal() for secret in self._secrets if len(secret.reveal()) >= SHORTEST_SECRET]
        spellings = {spelling.lower() for secret in hidden for spelling in _spellings(secret)}
        self._spellings = tuple(sorted(spellings, key=len, reverse=True))
        self._any = re.compile("|".join(map(re.escape, self._spellings)), re.IGNORECASE)

    def also(self, *secrets: str | Secret) -> Redactor:
        """Return one that hides more."""
        return Redactor((*self._secrets, *secrets))

    def text(self, text: str) -> str:
        """Return a text without the secrets; unescaped, where they were found only then."""
        shown = spelled = self._as_it_is(text)
        for _ in range(LAYERS):
            if not _may_be_escaped(before := spelled):
                break
            for unescaped in (_unescaped, html.unescape):
                spelled = unescaped(spelled)
                if (hidden := self._as_it_is(spelled)) != spelled:
                    shown = spelled = hidden
            if spelled == before:
                break
        return shown

    def words(self, error: BaseException) -> str:
        """Return what an error says without the secrets, and without any URL's password, known or not."""
        return without_password(self.text(str(error)))

    def body(self, body: bytes) -> bytes:
        """Return the body of an answer without the secrets: JSON as JSON, all else as UTF-8."""
        text = body.decode(json.detect_encoding(body), "replace")
        if self._as_it_is(text) == text and not _may_be_escaped(text):
            return body
        try:
            document = json.loads(body.decode(json.detect_encoding(body), "surrogatepass"))
            return json.dumps(self.value(document)).encode()
        except (ValueError, RecursionError):
            return self.text(text).encode(errors="replace")

    def value(self, value: Any) -> Any:
        """Return a JSON value without the secrets: neither as a text, nor as a key, nor as a number."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(key): self.value(item) for key, item in value.items()}
            case list():
                return [self.value(item) for item in value]
            case int() if self._as_it_is(str(value)) != str(value):
                return MASK
        return value

    def _as_it_is(self, text: str) -> str:
        small = text.lower()
        return self._any.sub(MASK, text) if any(spelling in small for spelling in self._spellings) else text


def bare(error: E) -> E:
    """Return an error without its frames and causes; to be raised ``from None``, where no other is being handled."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def raises_bare(kind: type[Exception] = OdiRouterError) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """
    Make the errors of a function :func:`bare`.

    :param kind: Of errors that say all there is to say in their own text.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except kind as error:
                failure = bare(error)
            del args, kwargs  # This frame is shown, too.
            raise failure

        return call

    return decorate


def without_password(text: str) -> str:
    """Hide the passwords of the URLs in a text; also where one stands in the place of a connection's id."""
    return PASSWORD_IN_URL.sub(rf"\1:{MASK}@", text)


def secrets_in_url(url: str) -> Iterator[str]:
    """Yield what must not be shown of a URL: its password, and with its user, as ``Proxy-Authorization`` has them."""
    rest = url.partition("://")[2] or url
    userinfo = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
    if not userinfo and PASSWORD_IN_URL.match(f"://{rest}"):
        userinfo = rest.partition("@")[0]
    user, _, password = userinfo.partition(":")
    # A sign that should have been encoded ends it early for a library, which then quotes what it takes for the host.
    for secret in filter(None, (userinfo, password or user, *re.split("[/?#]", userinfo))):
        yield from (secret, unquote(secret))


def secrets_in_extra(extra: object, name: str = "") -> Iterator[str]:
    """
    Yield the secrets in the extra of a connection: by the names of its fields, and any URL's password.

    :param name: Of the field that holds it.
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
            if NAME_OF_SECRET.search(name):
                yield extra
                yield from secrets_in_extra(_parts(extra))
        case int() if NAME_OF_SECRET.search(name) and not isinstance(extra, bool):
            yield str(extra)


def _parts(text: str) -> object:
    """Return the fields of a text that has some: a key file in JSON, a connection string."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        fields = (field.partition("=") for field in text.split(";"))
        return {name.strip(): value for name, equals, value in fields if equals and ";" in text}


def _spellings(secret: str) -> Iterator[str]:
    """Yield all that a secret may look like which no unescaping leads back to it."""
    data = secret.encode(errors="surrogatepass")
    yield from (secret, quote_plus(secret, errors="replace"), data.hex(), data.decode("latin-1"))
    for before in range(3):
        # In the middle of a longer text: without the signs that its neighbours have a share in.
        encoded = base64.b64encode(bytes(before) + data).decode()
        whole = encoded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield from (whole, whole.replace("+", "-").replace("/", "_"))


def _may_be_escaped(text: str) -> bool:
    return "%" in text or "\\" in text or "&" in text


def _unescaped(text: str) -> str:
    """Undo what URLs, JSON and programming languages do to a text, once."""
    return ESCAPED.sub(_sign, text)


def _sign(match: re.Match[str]) -> str:
    if percent := match["percent"]:
        if "%25" in percent:
            percent = re.sub("%(?:25)+(?=[0-9a-f]{2})", "%", percent, flags=re.IGNORECASE)
        return bytes.fromhex(percent.replace("%", "")).decode(errors="replace")
    if code := match["unicode"] or match["braces"] or match["hex"]:
        return chr(min(int(code, 16), 0x10FFFF))
    return WHITE_SPACE.get(match["sign"].lower(), match["sign"])
