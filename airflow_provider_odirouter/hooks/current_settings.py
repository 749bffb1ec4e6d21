"""The settings of the connection: read once, and again only after the service refuses the API key."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_odirouter.compat import AirflowNotFoundException, asks_in_thread
from airflow_provider_odirouter.errors import AuthenticationError, ConnectionNotFoundError
from airflow_provider_odirouter.hooks.connection import ConnectionSettings

if TYPE_CHECKING:
    from airflow.sdk import Connection

log = logging.getLogger(__name__)

MAX_KEYS = 3
"""How many API keys one call may try, if the connection has changed each time that the service refuses one."""


class CurrentSettings:
    """
    A connection's settings, shared by hooks of the same connection.

    :param load: Asks Airflow for the connection.
    :param aload: The same for a triggerer, whose event loop ``load`` would block.
    """

    def __init__(self, conn_id: str, load: Callable[[str], Connection], aload: Callable[[str], Awaitable[Connection]]):
        self._conn_id = conn_id
        self._load = load
        self._aload = aload
        self._settings: ConnectionSettings | None = None
        self._read_at = -math.inf
        self._lock = threading.Lock()
        self._may_reread = True

    def get(self) -> ConnectionSettings:
        """
        Return the settings; the first call reads the connection.

        :raises ConnectionSettingsError: If the connection does not exist or cannot be used.
        """
        return self._settings or self._read()

    async def aget(self, one_at_a_time: asyncio.Lock) -> ConnectionSettings:
        """Return the settings, as :meth:`get` does."""
        if self._settings is not None:
            return self._settings
        async with one_at_a_time:
            return self._settings or await self._aread()

    def reread(
        self, error: AuthenticationError, tried: Sequence[ConnectionSettings], sent_at: float
    ) -> ConnectionSettings:
        """
        Read the connection again, and return its settings if they have changed.

        :param error: The service's refusal of the key.
        :param tried: The settings that the call was sent with, in order.
        :param sent_at: When the call was last sent, by the steady clock. If the connection was read since then, it is
            not read again: many calls that are refused at once read it once.
        :raises AuthenticationError: The same error, if there are no other settings to try.
        :raises ConnectionSettingsError: If the connection no longer exists, or cannot be used.
        """
        # If it may not be reread, a signal handler runs, and the code that it interrupted may hold the lock.
        if self._may_reread and _may_try_another_key(error, tried):
            with self._lock:
                if self._is_unchanged_since(tried[-1], sent_at):
                    self._read()
        return self._other_settings(error, tried)

    async def areread(
        self,
        error: AuthenticationError,
        tried: Sequence[ConnectionSettings],
        sent_at: float,
        one_at_a_time: asyncio.Lock,
    ) -> ConnectionSettings:
        """Read the connection again, as :meth:`reread` does."""
        if self._may_reread and _may_try_another_key(error, tried):
            async with one_at_a_time:
                if self._is_unchanged_since(tried[-1], sent_at):
                    await self._aread()
        return self._other_settings(error, tried)

    def freeze_connection(self) -> None:
        """Never read the connection again: a signal handler may have interrupted a call to Airflow."""
        self._may_reread = False

    def _is_unchanged_since(self, refused: ConnectionSettings, sent_at: float) -> bool:
        return self._settings == refused and self._read_at <= sent_at

    def _other_settings(self, error: AuthenticationError, tried: Sequence[ConnectionSettings]) -> ConnectionSettings:
        if not _may_try_another_key(error, tried) or self._settings is None or self._settings in tried:
            raise error
        log.warning("%s The connection has changed since it was read; the call is sent with the new key.", error.what)
        return self._settings

    def _read(self) -> ConnectionSettings:
        began = time.monotonic()
        with self._not_found_as_our_error():
            return self._store(self._load(self._conn_id), began)

    async def _aread(self) -> ConnectionSettings:
        if asks_in_thread():
            return await asyncio.to_thread(self._read)
        began = time.monotonic()
        with self._not_found_as_our_error():
            return self._store(await self._aload(self._conn_id), began)

    def _store(self, connection: Connection, began: float) -> ConnectionSettings:
        settings = ConnectionSettings.from_connection(connection)
        if settings != self._settings:  # equal settings stay in use, with their TLS context and clients
            self._settings = settings
        self._read_at = began
        return self._settings or settings

    @contextmanager
    def _not_found_as_our_error(self) -> Iterator[None]:
        try:
            yield
        except AirflowNotFoundException:
            # From None: Airflow's own error says the same.
            what = f"Airflow finds no connection {self._conn_id!r}."
            if (variable := f"AIRFLOW_CONN_{self._conn_id.upper()}") in os.environ:
                what += (
                    f" The variable {variable} is set, but Airflow cannot read it: percent-encode special characters."
                )
            raise ConnectionNotFoundError(what) from None


def _may_try_another_key(error: AuthenticationError, tried: Sequence[ConnectionSettings]) -> bool:
    return error.status_code == 401 and len(tried) < MAX_KEYS
