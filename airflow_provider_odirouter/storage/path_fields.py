"""Operator parameters that are paths, or hold URLs. Light: Dags are parsed with it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from os import PathLike as OsPathLike
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_odirouter.redaction import secrets_in_web_url, web_urls_in
from airflow_provider_odirouter.text_paths import as_text

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

PathLike: TypeAlias = "str | OsPathLike[str] | ObjectStoragePath"
"""A path, or a URL of any store."""

MAX_HIDDEN_URLS = 100
"""Airflow compares each line of the log with all secrets, and shows 4,096 characters of a field by default."""


class UrlField:
    """
    An attribute that may hold URLs, also within texts. Their secrets are hidden whenever it is set.

    Airflow sets it when the templates are rendered, and shows it after that.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: object, owner: type) -> Any:
        return self if instance is None else getattr(instance, self._name)

    def __set__(self, instance: object, value: object) -> None:
        hide_secrets_of_urls(value)
        setattr(instance, self._name, value)


class PathField(UrlField):
    """A :class:`UrlField` that turns path objects into text, see :func:`~…text_paths.as_text`."""

    def __set__(self, instance: object, value: object) -> None:
        """Set the text, or the texts."""
        super().__set__(instance, as_text(value))


def hide_secrets_of_urls(value: object) -> None:
    """Let Airflow hide the secrets of web addresses in the task's log, and in its *Rendered Templates*."""
    secrets = {secret for text in islice(_web_urls(value), MAX_HIDDEN_URLS) for secret in secrets_in_web_url(text)}
    if secrets:
        from airflow.sdk.log import mask_secret

        mask_secret([*sorted(secrets)])


def _web_urls(value: object) -> Iterator[str]:
    match value:
        case str() if "://" in value:
            if value[:4].lower() == "http":  # A blank may be a part of it.
                yield value
            yield from web_urls_in(value)
        case dict():  # Airflow renders no other mapping.
            for item in value.values():
                yield from _web_urls(item)
        case list() | tuple():
            for item in value:
                yield from _web_urls(item)
