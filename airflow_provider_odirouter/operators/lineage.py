"""
A task's pictures in the events of its assets, and in OpenLineage.

Loaded when a task runs, not when a Dag is parsed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_provider_odirouter.compat import AssetRef
from airflow_provider_odirouter.storage.paths import LOCAL_PROTOCOLS, PathError, scheme_of, storage_path

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

log = logging.getLogger(__name__)

EXTRA_FIELDS = ("request_id", "endpoint", "outputs", "inference_seconds")
"""The fields of a manifest in an asset event: those that a consumer needs, and no free text of the vendor's."""
URI_PATH_CHARACTERS = "/:@!$&'()*+,;="
"""Characters that a URI's path may hold unquoted."""
SCHEMES = {"s3a": "s3", "gcs": "gs"}
"""Other schemes of a store, and the one that OpenLineage uses."""


def event_extra(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``extra`` of an asset event for the manifest of a request."""
    return {name: manifest[name] for name in EXTRA_FIELDS}


def describe_assets(
    context: Context, outlets: Iterable[object], extra: Mapping[str, Any], *, folder: str | None
) -> None:
    """
    Add what a task made to the events of its assets; values that the user has set win.

    Airflow emits the event of an asset whenever its task succeeds, but that of an alias only if the event has an asset:
    here the folder of the outputs, unless the user has added one.

    :param outlets: The task's outlets; those that are not assets are ignored.
    :param extra: The ``extra`` of each event.
    :param folder: The folder of the landed outputs; ``None``: nothing has landed.
    """
    for outlet in outlets:
        try:
            if isinstance(outlet, Asset | AssetRef):
                event = context["outlet_events"][outlet]
                event.extra = {**extra, **event.extra}
            elif isinstance(outlet, AssetAlias) and folder is not None:
                event = context["outlet_events"][outlet]
                if not event.asset_alias_events:
                    event.add(Asset(uri=_uri(folder)), extra=dict(extra))
        except (AirflowRuntimeError, ValueError) as error:
            # Airflow does not know the asset, or a folder cannot be an asset's URI. The pictures have landed, and are
            # paid: the task must not fail.
            log.warning("The outputs are missing in the asset event of %r: %s", outlet, error)


def landed_paths(manifest: Mapping[str, Any] | None) -> list[str]:
    """Return the paths of the landed outputs of a manifest; of ``None``, since the task has failed, no paths."""
    return [output["path"] for output in manifest["outputs"] if "path" in output] if manifest else []


def openlineage(inputs: Iterable[str], outputs: Iterable[str]) -> OperatorLineage[Any, Any]:
    """
    Return what a task has read and written, for OpenLineage.

    OpenLineage's listener calls this in a fork of the task's process. Nothing here may ask Airflow: ``dag.test()`` does
    not answer a fork, and a fork that is stopped too early leaves an answer in the connection, which the task would
    take for its own.

    :param inputs: Paths and URLs.
    :param outputs: Paths.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset

    def datasets(paths: Iterable[str]) -> list[Dataset]:
        names = dict.fromkeys(map(dataset_name, paths))
        return [Dataset(namespace=namespace, name=name) for namespace, name in names]

    return OperatorLineage(inputs=datasets(inputs), outputs=datasets(outputs))


def dataset_name(path: str) -> tuple[str, str]:
    """
    Return OpenLineage's namespace and name of a URL or path: ``("s3://bucket", "folder/cup.png")``.

    They contain no connection id, and no part of a URL that may be secret: a user, a query, a fragment.
    """
    path = re.sub("://[^/?#]*@", "://", path, count=1)
    scheme = scheme_of(path)
    if scheme in LOCAL_PROTOCOLS:
        with suppress(PathError):  # A task that refused the path has failed, and must not fail here, too.
            path = storage_path(path).path
        return "file", path
    if scheme in {"http", "https"}:
        path = re.split("[?#]", path, maxsplit=1)[0]
    host, _, name = path.partition("://")[2].partition("/")
    # The key of a store's object begins without a slash.
    return f"{SCHEMES.get(scheme, scheme)}://{host}", f"/{name}" if scheme in {"http", "https"} else name


def _uri(folder: str) -> str:
    namespace, name = dataset_name(folder)
    root = namespace if "://" in namespace else f"{namespace}://"
    return f"{root}/{quote(name.strip('/'), safe=URI_PATH_CHARACTERS)}"
