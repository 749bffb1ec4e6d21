"""Describes outputs: the content of a file decides what it is, held against what the service has announced."""

from __future__ import annotations

import base64
import hashlib
import logging
import mimetypes
import re
from pathlib import PurePosixPath
from typing import IO
from urllib.parse import unquote_to_bytes

from airflow_provider_odirouter.errors import LandingError
from airflow_provider_odirouter.images.formats import Format, Kind, identify
from airflow_provider_odirouter.images.picture import UnusablePictureError, describe_other, measure
from airflow_provider_odirouter.models import LandedOutput, OutputFile

log = logging.getLogger(__name__)

KINDS = {"image": Kind.PICTURE, "video": Kind.VIDEO, "audio": Kind.SOUND}
"""By the first word of a media type or of an output's ``type``."""
MEANINGLESS = {"", "application/octet-stream", "binary/octet-stream", "application/download", "application/x-download"}
"""Media types that say nothing about a file."""
PAGES = {"text/html", "application/xhtml+xml"}
CHARACTERS_AT_ONCE = 2**20
"""Of base64; a multiple of four."""


def is_data_url(url: str) -> bool:
    """Return whether a URL holds the file itself."""
    return url[:5].lower() == "data:"


def write_data_url(url: str, into: IO[bytes]) -> None:
    """
    Write the file that a ``data:`` URL holds.

    :raises LandingError: If it cannot be decoded.
    """
    header, _, data = url.partition(",")
    try:
        if header.lower().rstrip().endswith(";base64"):
            _write_base64(unquote_to_bytes(data).decode("ascii") if "%" in data else data, into)
        else:
            into.write(unquote_to_bytes(data))
    except ValueError as error:
        what = f"The result holds an output as a data: URL that cannot be decoded: {error}."
        raise LandingError(what) from None  # A cause would show the content.


def _write_base64(text: str, into: IO[bytes]) -> None:
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    text += "=" * (-len(text) % 4)
    for start in range(0, len(text), CHARACTERS_AT_ONCE):
        into.write(base64.b64decode(text[start : start + CHARACTERS_AT_ONCE], validate=True))


def describe(output: OutputFile, file: IO[bytes], *, picture_due: bool | None = None) -> LandedOutput:
    """
    Describe the file of an output, without its path.

    :param output: What the service has announced.
    :param picture_due: Whether the endpoint makes pictures, whatever the service calls this one. Default: not known; a
        file of which the service says nothing must be a picture.
    :raises LandingError: If the file is empty, a broken picture, or another thing than is due, such as a proxy's page.
    """
    announced, known = media_type(output), identify(file)
    _check(file, known, _kind_due(output, announced, picture_due), is_page_due=_is_page_due(output, announced))
    size = _measured(file, known) if known and known.kind is Kind.PICTURE else None
    width, height = size or (output.width, output.height)
    size_bytes = file.seek(0, 2)
    file.seek(0)
    return LandedOutput(
        content_type=_content_type(announced, known),
        width=width,
        height=height,
        size_bytes=size_bytes,
        sha256=hashlib.file_digest(file, "sha256").hexdigest(),  # type: ignore[arg-type]
    )


def extension(output: OutputFile, landed: LandedOutput, file: IO[bytes]) -> str:
    """Return the extension of a landed file's name, without the dot."""
    known = identify(file)
    if known and landed.content_type == known.content_type:
        return known.extension
    suffix = PurePosixPath(output.file_name or "").suffix or mimetypes.guess_extension(landed.content_type or "")
    return re.sub(r"[^A-Za-z0-9]", "", suffix or "")[:8] or "bin"


def media_type(output: OutputFile) -> str:
    """Return the media type that the service announces, in lower case and without parameters."""
    announced = output.content_type
    if not announced and is_data_url(output.url):
        announced = output.url[5:300].partition(",")[0]
    return (announced or "").partition(";")[0].strip().lower()


def _kind_due(output: OutputFile, announced: str, picture_due: bool | None) -> Kind | None:
    if picture_due:
        return Kind.PICTURE
    texts = [text for text in ((output.type or "").strip().lower(), announced) if text]
    for text in texts:
        for word, kind in KINDS.items():
            if text.startswith(word):
                return kind
    return Kind.PICTURE if picture_due is None and not texts else None


def _is_page_due(output: OutputFile, announced: str) -> bool:
    return announced in PAGES and bool(output.type)


def _check(file: IO[bytes], known: Format | None, due: Kind | None, *, is_page_due: bool) -> None:
    """Check that a file is what is due, as far as its first bytes tell it."""
    if not file.seek(0, 2):
        raise LandingError("The file that OdiRouter returned is empty (0 bytes).")
    if known and known.kind is Kind.PAGE and (due or not is_page_due):
        words = "not a PNG, JPEG or WebP picture" if due is Kind.PICTURE else "not the output"
        raise LandingError(
            f"The file that OdiRouter returned is an HTML page, {words}: a proxy or a login may have answered."
        )
    if due is Kind.PICTURE and (known is None or known.kind is Kind.TEXT):
        raise LandingError(f"The file that OdiRouter returned as a picture {describe_other(file, known)}.")
    if due and known and known.kind is Kind.TEXT:
        raise LandingError(f"The file that OdiRouter returned as {due.value} is {known.with_article}.")
    if due and known and known.kind is not due:
        log.warning("An output is %s, and no %s; it is landed as it is.", known.with_article, due.value)


def _measured(file: IO[bytes], known: Format) -> tuple[int, int] | None:
    try:
        return measure(file, known)
    except UnusablePictureError as error:
        raise LandingError(f"The file that OdiRouter returned as a picture {error}.") from error


def _content_type(announced: str, known: Format | None) -> str | None:
    """Return the media type of a file: of a container that many formats share, the announced one."""
    is_shared = known is None or known.kind in {Kind.ARCHIVE, Kind.TEXT}
    if is_shared and announced not in MEANINGLESS:
        return announced
    return known.content_type if known else announced or None
