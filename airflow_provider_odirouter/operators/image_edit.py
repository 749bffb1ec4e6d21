"""The operator for ``gpt_image_1_edit``: named, checked parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from airflow_provider_odirouter.json_values import json_object
from airflow_provider_odirouter.operators.base import Place
from airflow_provider_odirouter.operators.literals import open_fields
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.places import AsText

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_odirouter.models import ImageEdit

Pictures: TypeAlias = "Place | Mapping[str, Any] | XComArg"
"""A picture's URL or path, an upstream edit's manifest, or an upstream task's output that will be one of these."""

EDIT_FIELDS = (
    "prompt",
    "images",
    "mask",
    "input_fidelity",
    "n",
    "size",
    "quality",
    "background",
    "output_format",
    "output_compression",
    "moderation",
    "user",
)


class OdiRouterImageEditOperator(OdiRouterQueueOperator):
    """
    Edit pictures with OdiRouter's ``gpt_image_1_edit``.

    Literal values are checked when the Dag is parsed, rendered ones before anything is sent; every broken rule is
    named at once, with its field. A template that renders to nothing sets nothing. Local pictures are read on the
    worker and sent along. What is not set is not sent: the defaults are the server's. Everything else is as in
    :class:`OdiRouterQueueOperator`.

    :param prompt: What to do, 1 to 32,000 characters.
    :param images: The pictures to edit, 1 to 16: ``http(s)`` URLs, paths, URLs of stores such as ``s3://bucket/cup.png``,
        or the manifests of upstream edits; what the worker reads is PNG, JPEG or WebP of at most 10 MiB. A single one
        needs no list.
    :param mask: A picture whose transparent part is what may be edited: of the same format and size as the first image.
    :param input_fidelity: ``"high"`` or ``"low"`` (server's default).
    :param n: How many pictures to make, 1 to 10. Server's default: 1.
    :param size: ``"1024x1024"``, ``"1024x1536"``, ``"1536x1024"`` or ``"auto"`` (server's default).
    :param quality: ``"low"``, ``"medium"``, ``"high"`` or ``"auto"`` (server's default).
    :param background: ``"transparent"`` (needs ``png`` or ``webp``), ``"opaque"`` or ``"auto"`` (server's default).
    :param output_format: ``"png"`` (server's default), ``"jpeg"`` or ``"webp"``.
    :param output_compression: 0 to 100, only with ``jpeg`` or ``webp``. Server's default: 100.
    :param moderation: ``"auto"`` (server's default) or ``"low"``.
    :param user: Identifies the end user to the vendor.
    """

    template_fields: Sequence[str] = (*EDIT_FIELDS, "odirouter_conn_id", "output_path", "storage_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {}
    images = AsText()
    mask = AsText()

    def __init__(
        self,
        *,
        prompt: str,
        images: Pictures | Sequence[Pictures],
        mask: Pictures | None = None,
        input_fidelity: str | None = None,
        n: int | str | None = None,
        size: str | None = None,
        quality: str | None = None,
        background: str | None = None,
        output_format: str | None = None,
        output_compression: int | str | None = None,
        moderation: str | None = None,
        user: str | None = None,
        **kwargs: Any,
    ) -> None:
        from airflow_provider_odirouter.models import ImageEdit

        super().__init__(endpoint=ImageEdit.ENDPOINT, parameters={}, **kwargs)
        self.prompt = prompt
        self.images = images
        self.mask = mask
        self.input_fidelity = input_fidelity
        self.n = n
        self.size = size
        self.quality = quality
        self.background = background
        self.output_format = output_format
        self.output_compression = output_compression
        self.moderation = moderation
        self.user = user
        self._edit: ImageEdit | None = None
        self._digests: dict[str, str] = {}
        # A mapped task is made anew on the worker, where execute() checks: what it finds there is final.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            values = self._edit_values()
            unknown = open_fields(values)
            ImageEdit.check(values, unknown=unknown)
            texts = {name: values[name] for name in ("prompt", "user") if name not in unknown}
            json_object(self.endpoint, texts, name="")

    def request_parameters(self) -> Mapping[str, Any]:
        """Return the checked parameters, with local pictures as base64."""
        from airflow_provider_odirouter.errors import InvalidParametersError
        from airflow_provider_odirouter.images.inputs import read_inputs
        from airflow_provider_odirouter.models import ImageEdit

        edit = self._edit = ImageEdit.parse(self._edit_values())
        inputs = read_inputs(edit.images, edit.mask, storage_conn_id=self.storage_conn_id)
        if inputs.problems:
            raise InvalidParametersError(self.endpoint, inputs.problems)
        for remark in inputs.remarks:
            self.log.warning(remark)
        self._digests = {self._place(source): digest for source, digest in inputs.sha256.items()}
        return edit.to_parameters() | inputs.parameters()

    def input_pictures(self) -> Sequence[str]:
        """Return where the images and the mask are from, as they were given."""
        edit = self._parsed()
        return (*edit.images, *([edit.mask] if edit.mask else []))

    def shown_parameters(self) -> Mapping[str, Any]:
        """Return the edit's parameters, with the pictures as they can be found by others."""
        edit = self._parsed()
        parameters = edit.to_parameters()
        del parameters["images"]
        parameters.pop("mask", None)
        return {
            "images": tuple(map(self._place, edit.images)),
            "mask": self._place(edit.mask) if edit.mask else None,
            "sha256": self._digests,
            "parameters": parameters,
        }

    def _place(self, source: str) -> str:
        from airflow_provider_odirouter.images.inputs import place_of

        return place_of(source, self.storage_conn_id)

    def _parsed(self) -> ImageEdit:
        """Return what was read before the submit; or read it, in a process that goes on after a deferral."""
        from airflow_provider_odirouter.models import ImageEdit

        return self._edit or ImageEdit.parse(self._edit_values())

    def _edit_values(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in EDIT_FIELDS}
        # A template that renders to nothing sets nothing; but what is required is missed.
        return {name: None if _is_empty(value) and name != "prompt" else value for name, value in values.items()}


def _is_empty(value: object) -> bool:
    return isinstance(value, str) and not value
