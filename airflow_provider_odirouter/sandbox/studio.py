"""Makes the pictures of requests: as late as possible, and once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from threading import Lock

from airflow_provider_odirouter.sandbox.engine import Failure, QueuedRequest
from airflow_provider_odirouter.sandbox.inputs import InputError, fetch
from airflow_provider_odirouter.sandbox.parameters import check_mask
from airflow_provider_odirouter.sandbox.pictures import PictureFile, edit, encode

_MAX_KEPT = 64


class Studio:
    """
    Makes the pictures of requests, and keeps the latest.

    :param own_file: Reads a URL that is one of the sandbox's own files, so that one request's result can be the next
        one's input without a socket.
    """

    def __init__(self, own_file: Callable[[str], bytes | None]) -> None:
        self._own_file = own_file
        self._kept: OrderedDict[str, list[PictureFile]] = OrderedDict()
        self._lock = Lock()

    def fetch_inputs(self, request: QueuedRequest) -> None:
        """Fetch the inputs that the request names by URL; one that cannot be used makes the request fail."""
        with request.lock:
            if request.inputs_fetched or request.failure:
                return
            request.inputs_fetched = True
            order = request.order
            try:
                images = tuple(self._fetched(source, request) for source in order.images)
                mask = self._fetched(order.mask, request) if order.mask is not None else None
            except InputError as error:
                request.failure = request.failure or Failure("REQUEST_INVALID", str(error))
                return
            broken = check_mask(images[0], mask) if order.urls and images else []
            if broken:
                request.failure = request.failure or Failure("REQUEST_INVALID", "; ".join(broken))
            request.order = replace(order, images=images, mask=mask)

    def pictures(self, request: QueuedRequest) -> list[PictureFile]:
        """Make a request's pictures."""
        with request.lock:
            with self._lock:
                if request.request_id in self._kept:
                    self._kept.move_to_end(request.request_id)
                    return self._kept[request.request_id]
            order = request.order
            made = [
                encode(
                    edit(
                        order.prompt,
                        order.images[0] if order.images else None,
                        order.mask,
                        number=number,
                        size=order.size,
                        background=order.background,
                    ),
                    order.output_format,
                    order.output_compression,
                )
                for number in range(order.n)
            ]
            with self._lock:
                self._kept[request.request_id] = made
                if len(self._kept) > _MAX_KEPT:
                    self._kept.popitem(last=False)
            return made

    def _fetched(self, source: bytes | str, request: QueuedRequest) -> bytes | str:
        if isinstance(source, bytes):
            return source
        return self._own_file(source) or fetch(source, any_host=request.scope.settings.fetch_any_host)
