"""The rules of ``gpt_image_1_edit``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_provider_odirouter import IMAGE_EDIT_ENDPOINT
from airflow_provider_odirouter.batch.rules import FilesRead

if TYPE_CHECKING:
    from airflow_provider_odirouter.errors import Problem

MAX_STEM = 40


class ImageEditRules:
    """The rules of a batch of image edits, see :class:`~.rules.EndpointRules`."""

    endpoint = IMAGE_EDIT_ENDPOINT
    list_name = "edits"
    file_fields = ("images", "mask")
    list_columns = ("images",)

    @property
    def parameter_names(self) -> frozenset[str]:
        """All fields of an image edit."""
        from airflow_provider_odirouter.models import ImageEdit

        return frozenset(ImageEdit.model_fields)

    def check(self, values: Mapping[str, Any], *, unknown: frozenset[str]) -> None:
        """Check parameters of which some are still templates."""
        from airflow_provider_odirouter.models import ImageEdit

        ImageEdit.check(values, unknown=unknown)

    def parse(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of an edit, with paths or URLs of pictures."""
        from airflow_provider_odirouter.models import ImageEdit

        return ImageEdit.parse(values).to_parameters()

    def files_of(self, values: Mapping[str, Any], problems: Sequence[Problem]) -> dict[str, Any]:
        """Return the pictures that are not part of a broken rule."""
        from airflow_provider_odirouter.models import ImageEdit

        images, mask = ImageEdit.pictures(values, problems)
        return ({"images": list(images)} if images else {}) | ({"mask": mask} if mask else {})

    def as_edit(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a manifest, or a line of a batch's, as an edit of its outputs; anything else is one already."""
        is_manifest = isinstance(item.get("outputs"), list | tuple) and "images" not in item
        return {"images": item} if is_manifest else item

    def list_problems(self, names: Collection[str]) -> list[Problem]:  # noqa: ARG002
        """Return no problem: the rules are about each edit."""
        return []

    def read(self, files: Mapping[str, Any], storage_conn_id: str | None) -> FilesRead:
        """Read and check the pictures of an edit."""
        from airflow_provider_odirouter.images.inputs import read_inputs
        from airflow_provider_odirouter.text_paths import relative_remarks

        images, mask = files["images"], files.get("mask")
        inputs = read_inputs(images, mask, storage_conn_id=storage_conn_id)
        remarks = (*relative_remarks(images, mask), *inputs.remarks)
        return FilesRead(inputs.parameters(), inputs.problems, remarks, inputs.sha256)

    def default_name(self, number: int, parameters: Mapping[str, Any], fingerprint: str) -> str:  # noqa: ARG002
        """Return the name of the first picture, and what tells the edit from others of this picture."""
        return f"{_stem(parameters['images'][0])}-{fingerprint[:10]}"

    def url_fields(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the fields of the pictures."""
        return self.file_fields


def _stem(source: str) -> str:
    from airflow_provider_odirouter.images.inputs import is_url

    path = re.split("[?#]", source)[0] if is_url(source) else source
    return re.sub(r"[^A-Za-z0-9_-]+", "-", PurePosixPath(path).stem)[:MAX_STEM].strip("-") or "edit"
