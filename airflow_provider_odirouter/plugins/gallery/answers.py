"""The gallery's answers, with the headers that keep a page or a picture from doing harm."""

from __future__ import annotations

import secrets
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse

from airflow_provider_odirouter.plugins.gallery import files
from airflow_provider_odirouter.plugins.gallery.subjects import Kind, Picture
from airflow_provider_odirouter.plugins.gallery.views import Page

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PICTURE_HEADERS = HEADERS | {
    # A browser must ask each time: a person may lose the right to see the picture.
    "Cache-Control": "private, no-cache",
    # Airflow before 3.3 would compress it again, and drop its length.
    "Content-Encoding": "identity",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
}


def html(page: Page, status_code: int = 200) -> Response:
    """Send a page that may load only itself, the gallery's pictures, and the linked pictures that it names."""
    nonce = secrets.token_urlsafe(16)
    policy = {
        "default-src": "'none'",
        "img-src": " ".join(["'self'", *sorted(page.origins)]),
        "style-src": f"'nonce-{nonce}'",
        "script-src": f"'nonce-{nonce}'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self'",
    }
    headers = HEADERS | {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-store",
    }
    return HTMLResponse(page.render(nonce).encode("utf-8", "replace"), status_code, headers=headers)


async def small(request: Request, picture: Picture, *, cover: bool = False) -> Response:
    """Send a small picture, if the browser does not have it yet."""
    headers = {"ETag": picture.etag, **PICTURE_HEADERS}
    if request.headers.get("If-None-Match") == picture.etag:
        return Response(status_code=304, headers=headers)
    content = await files.small_picture(picture.source, str(picture.sha256), cover=cover)
    return Response(content, media_type="image/webp", headers=headers)


async def whole(picture: Picture, *, download: bool) -> Response:
    """Send a picture as it is. An output of another kind, such as SVG or a video, is sent as a download only."""
    any_file = download and picture.kind is Kind.OUTPUT
    whole = await files.open_whole(picture.source, str(picture.sha256), any_file=any_file)
    disposition = f"{'attachment' if download else 'inline'}; filename*=utf-8''{quote(picture.file_name, safe='')}"
    headers = {"Content-Disposition": disposition, "Content-Length": str(whole.size), **PICTURE_HEADERS}
    return StreamingResponse(whole.chunks(), media_type=whole.content_type, headers=headers)


def display_error(_: Request, error: Exception) -> Response:
    """Send the text of a :class:`DisplayError` in place of a picture."""
    status_code = error.status_code if isinstance(error, files.DisplayError) else 500
    return PlainTextResponse(str(error), status_code, headers=HEADERS)
