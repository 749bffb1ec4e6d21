"""
Finds the outputs in a result, whatever its shape.

The service documents ``outputs`` and ``output``. The other shapes are those of fal.ai, whose protocol it uses, and of
OpenAI, whose models it serves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin

from pydantic import ValidationError

from airflow_provider_odirouter.models import OutputFile
from airflow_provider_odirouter.protocol.json_bodies import shorten
from airflow_provider_odirouter.redaction import shorten_url

DOCUMENTED = ("outputs", "output")
TYPES = {
    "images": "image",
    "image": "image",
    "image_url": "image",
    "videos": "video",
    "video": "video",
    "video_url": "video",
    "audios": "audio",
    "audio": "audio",
    "audio_file": "audio",
    "audio_url": "audio",
    "files": None,
    "file": None,
    "data": None,
    "result": None,
    "response": None,
    "content": None,
}
"""The fields that outputs may be in, and the type of those outputs."""
BASE64_FIELDS = ("b64_json", "base64", "file_data")
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{64}")
"""The beginning of a file in base64 where a link could be."""
LINK = re.compile(r"(?:https?:|data:|/)\S+", re.IGNORECASE)
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
MAX_DEPTH = 8
MAX_QUOTED = 5
MAX_QUOTED_LENGTH = 100
MAX_KEYS_LENGTH = 300


def find_outputs(document: Mapping[str, Any], base_url: str) -> tuple[OutputFile, ...]:
    """
    Return the outputs of a result, each once and in order.

    :param base_url: The API's, which relative links begin at.
    """
    records = [record for key in DOCUMENTED for record in _records(document.get(key), None)]
    # A result may also repeat its inputs, under the other names.
    records = records or list(_records({key: value for key, value in document.items() if key in TYPES}, None))
    by_url = {(url := _absolute(record["url"], base_url)): record | {"url": url} for record in records}
    return tuple(map(_output, by_url.values()))


def describe_unread(document: Mapping[str, Any]) -> str:
    """Return the keys of a result, and the links in it, for the message that it has no output."""
    keys = shorten(", ".join(sorted(document)), MAX_KEYS_LENGTH) or "none"
    links = [f"{path}: {link}" for path, link in _links(document, "")][: MAX_QUOTED + 1]
    if not links:
        return f"its keys are {keys}."
    more = ", …" if len(links) > MAX_QUOTED else ""
    return f"its keys are {keys}. It has links that are not read: {', '.join(links[:MAX_QUOTED])}{more}."


def count_without_file(document: Mapping[str, Any]) -> int:
    """Return how many outputs a result lists without a file."""
    listed = document.get("outputs")
    return sum(not any(_records(one, None)) for one in listed) if isinstance(listed, list) else 0


def _records(value: object, type_: str | None, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the records of files in a value, each with a ``url``."""
    if depth > MAX_DEPTH:
        return
    match value:
        case str():
            if url := _url(value.strip(), is_file=type_ is not None):
                yield _typed({"url": url}, type_)
        case list():
            for one in value:
                yield from _records(one, type_, depth + 1)
        case dict():
            if record := _record(value):
                yield _typed(record, type_)
                return
            for key, one in value.items():
                if key in TYPES:
                    yield from _records(one, TYPES[key] or type_, depth + 1)


def _record(value: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record of a file with its URL, which is a ``data:`` URL if the record holds the file in base64."""
    if isinstance(url := value.get("url"), str) and url.strip():
        return value | {"url": url.strip()}
    for name in BASE64_FIELDS:
        if isinstance(encoded := value.get(name), str) and encoded:
            others = {key: one for key, one in value.items() if key not in BASE64_FIELDS}
            return others | {"url": _data_url(encoded, value.get("content_type"))}
    return None


def _typed(record: dict[str, Any], type_: str | None) -> dict[str, Any]:
    return record if isinstance(record.get("type"), str) or type_ is None else record | {"type": type_}


def _url(text: str, *, is_file: bool) -> str | None:
    """Return the URL that a text is; ``None``: it is another text."""
    if BASE64.match(text) and is_file:
        return _data_url(text, None)
    return text if LINK.fullmatch(text) else None


def _data_url(encoded: str, content_type: object) -> str:
    if encoded[:5].lower() == "data:":
        return encoded
    return f"data:{content_type if isinstance(content_type, str) else ''};base64,{encoded}"


def _absolute(url: str, base_url: str) -> str:
    if SCHEME.match(url):
        return url
    try:
        return urljoin(f"{base_url}/", url)
    except ValueError:
        return url


def _output(record: dict[str, Any]) -> OutputFile:
    try:
        return OutputFile.model_validate(record)
    except ValidationError:
        # The URL and the type are enough: the other fields are measured when the file has landed.
        types = {name: value for name in ("type", "content_type") if isinstance(value := record.get(name), str)}
        return OutputFile(url=record["url"], **types)


def _links(value: object, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the links in a value, shortened, each with its path."""
    if depth > MAX_DEPTH:
        return
    match value:
        case str() if re.match("(?:https?:)?//|data:", value, re.IGNORECASE):
            yield path, _shorten_link(value)
        case dict():
            for key, one in value.items():
                yield from _links(one, f"{path}.{shorten(key, 40)}".lstrip("."), depth + 1)
        case list():
            for index, one in enumerate(value):
                yield from _links(one, f"{path}[{index}]", depth + 1)


def _shorten_link(link: str) -> str:
    """Return a link without what may give access to the file."""
    if link[:5].lower() == "data:":
        return f"{shorten(link.partition(',')[0], 40)},… ({len(link):,} characters)"
    return shorten(shorten_url(link), MAX_QUOTED_LENGTH)
