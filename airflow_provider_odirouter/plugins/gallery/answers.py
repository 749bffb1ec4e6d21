"""The gallery's answers, with the headers that keep a page or a picture from doing harm."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse

from airflow_provider_odirouter.plugins.gallery import named, pictures
from airflow_provider_odirouter.plugins.gallery.figures import is_loaded
from airflow_provider_odirouter.plugins.gallery.files import NotShownError
from airflow_provider_odirouter.plugins.gallery.instances import Instance
from airflow_provider_odirouter.plugins.gallery.named import Named
from airflow_provider_odirouter.plugins.gallery.rendering import Page

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PICTURE_HEADERS = HEADERS | {
    "Cache-Control": "private, no-cache",
    # Airflow before 3.3 would compress it again, and drop its length.
    "Content-Encoding": "identity",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
}


def html(page: Page, shown: Iterable[Instance] = (), *, status_code: int = 200) -> Response:
    """Send a page that may load nothing but itself, our pictures, and those behind the vendor's links that it names."""
    nonce = secrets.token_urlsafe(16)
    loaded = (one for instance in shown for one in named.pictures_of(instance) if is_loaded(one))
    origins = {one.origin for one in loaded if one.is_linked}
    policy = {
        "default-src": "'none'",
        "img-src": " ".join(["'self'", *sorted(origin for origin in origins if origin)]),
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


async def small(request: Request, picture: Named, *, cover: bool = False) -> Response:
    """Send a small picture."""
    # To be asked each time, since the right to see it may be gone; but not to be sent again.
    headers = {"ETag": picture.etag, **PICTURE_HEADERS}
    if request.headers.get("If-None-Match") == picture.etag:
        return Response(status_code=304, headers=headers)
    content = await pictures.small_picture(picture.place, str(picture.sha256), cover=cover)
    return Response(content, media_type="image/webp", headers=headers)


async def whole(picture: Named, *, download: bool) -> Response:
    """Send a picture as it is."""
    whole = await pictures.whole_picture(picture.place, str(picture.sha256))
    disposition = f"{'attachment' if download else 'inline'}; filename*=utf-8''{quote(picture.file_name, safe='')}"
    headers = {"Content-Disposition": disposition, "Content-Length": str(whole.size), **PICTURE_HEADERS}
    return StreamingResponse(whole.chunks(), media_type=whole.content_type, headers=headers)


def tell(_: Request, error: Exception) -> Response:
    """Say why a picture cannot be shown."""
    status_code = error.status_code if isinstance(error, NotShownError) else 500
    return PlainTextResponse(str(error), status_code, headers=HEADERS)
