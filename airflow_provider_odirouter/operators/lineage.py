"""
What others learn of a task's pictures: the events of its assets, and OpenLineage.

Loaded when a task runs, not when a Dag is parsed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.definitions.asset import AssetRef
from airflow.sdk.exceptions import AirflowRuntimeError

from airflow_provider_odirouter.images.paths import LOCAL_PROTOCOLS, scheme_of, storage_path

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

log = logging.getLogger(__name__)

ESSENTIALS = ("request_id", "endpoint", "outputs", "inference_seconds")
"""What an asset event tells of a manifest: what its consumer needs, and nothing that the vendor words freely."""
IN_URI_PATH = "/:@!$&'()*+,;="
"""What a URI's path may hold as it is."""
SCHEMES = {"s3a": "s3", "gcs": "gs"}
"""Other words for a store, and OpenLineage's word for it."""


def essentials(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an asset event tells of the manifest of a request."""
    return {name: manifest[name] for name in ESSENTIALS}


def describe_assets(
    context: Context, outlets: Iterable[object], extra: Mapping[str, Any], *, folder: str | None
) -> None:
    """
    Tell the events of a task's assets what it made, beside what the user has told them.

    Airflow emits the event of an asset whenever its task succeeds; that of an alias only if it is given an asset: the
    folder of the outputs, unless the user has given it one.

    :param outlets: The task's. What is no asset is left alone.
    :param extra: What is told.
    :param folder: Where outputs have landed; ``None``: none have.
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
        except (AirflowRuntimeError, ValueError) as error:  # no such asset, or a folder that Airflow takes for none
            # The pictures have landed, and are paid.
            log.warning("The asset event of %r does not tell what was made: %s", outlet, error)


def landed(manifest: Mapping[str, Any] | None) -> list[str]:
    """Return where the outputs of a manifest have landed; ``None``: the task has failed."""
    return [output["path"] for output in manifest["outputs"] if "path" in output] if manifest else []


def openlineage(inputs: Iterable[str], outputs: Iterable[str]) -> OperatorLineage[Any, Any]:
    """
    Tell OpenLineage what a task has read, and what it has made.

    Its listener asks in a fork of the task's process. Nothing here may ask Airflow in turn: ``dag.test()`` answers no
    fork, and one that is stopped at a bad moment leaves an answer on the line for the task itself to stumble over.

    :param inputs: Paths and URLs.
    :param outputs: Paths.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset

    def datasets(places: Iterable[str]) -> list[Dataset]:
        names = dict.fromkeys(map(dataset_name, places))
        return [Dataset(namespace=namespace, name=name) for namespace, name in names]

    return OperatorLineage(inputs=datasets(inputs), outputs=datasets(outputs))


def dataset_name(place: str) -> tuple[str, str]:
    """
    Return OpenLineage's namespace and name of a URL or path: ``("s3://bucket", "folder/cup.png")``.

    Neither has a connection's id, nor what a URL may hold of secrets: a user, a query, a fragment.
    """
    place = re.sub("://[^/?#]*@", "://", place, count=1)
    scheme = scheme_of(place)
    if scheme in LOCAL_PROTOCOLS:
        return "file", str(storage_path(place).path)
    if scheme in {"http", "https"}:
        place = re.split("[?#]", place, maxsplit=1)[0]
    host, _, path = place.partition("://")[2].partition("/")
    # The key of a store's object begins without a slash.
    return f"{SCHEMES.get(scheme, scheme)}://{host}", f"/{path}" if scheme in {"http", "https"} else path


def _uri(folder: str) -> str:
    namespace, name = dataset_name(folder)
    root = namespace if "://" in namespace else f"{namespace}://"
    return f"{root}/{quote(name.strip('/'), safe=IN_URI_PATH)}"
