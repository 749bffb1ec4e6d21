"""The operator for ``gpt_image_1_edit``: named, checked parameters."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from airflow_provider_odirouter import IMAGE_EDIT_ENDPOINT
from airflow_provider_odirouter.compat import SET_DURING_EXECUTION
from airflow_provider_odirouter.json_values import json_object
from airflow_provider_odirouter.operators.queue import OdiRouterQueueOperator
from airflow_provider_odirouter.parameter_checks import is_unset
from airflow_provider_odirouter.storage.path_fields import PathField, PathLike
from airflow_provider_odirouter.templating import templated_fields
from airflow_provider_odirouter.text_paths import relative_remarks

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_provider_odirouter.models import ImageEdit

log = logging.getLogger(__name__)

ImageSource: TypeAlias = "PathLike | Mapping[str, Any] | XComArg"
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

    Literal values are checked when the Dag is parsed, rendered ones before anything is sent; the error names every
    broken rule with its field, and every picture that cannot be used. Local pictures are read on the worker and sent
    with the request. A parameter that is not set is not sent: the server's default applies. ``None``, NaN, a blank text
    and the text ``None`` count as not set. Everything else is as in
    :class:`~airflow_provider_odirouter.operators.queue.OdiRouterQueueOperator`.

    :param prompt: What to do, 1 to 32,000 characters.
    :param images: The pictures to edit, 1 to 16: ``http(s)`` URLs, paths, URLs of stores such as ``s3://bucket/cup.png``,
        or the manifests of upstream edits. The worker reads PNG, JPEG and WebP files of at most 10 MiB. A single one
        needs no list.
    :param mask: A picture whose transparent part may be edited: of the same format and size as the first image.
    :param input_fidelity: ``"high"`` or ``"low"`` (server's default).
    :param n: How many pictures to make, 1 to 10. Server's default: 1.
    :param size: ``"1024x1024"``, ``"1024x1536"``, ``"1536x1024"`` or ``"auto"`` (server's default).
    :param quality: ``"low"``, ``"medium"``, ``"high"`` or ``"auto"`` (server's default).
    :param background: ``"transparent"`` (needs ``png`` or ``webp``), ``"opaque"`` or ``"auto"`` (server's default).
    :param output_format: ``"png"`` (server's default), ``"jpeg"`` or ``"webp"``.
    :param output_compression: 0 to 100, only with ``jpeg`` or ``webp``. Server's default: 100.
    :param moderation: ``"auto"`` (server's default) or ``"low"``.
    :param user: Identifies the end user to the vendor.
    :param odirouter_conn_id: The Airflow connection, of type ``odirouter``.
    :param output_path: Folder for the outputs: a path, or a URL of any store that ``ObjectStoragePath`` knows, such as
        ``s3://bucket/edited``. The task checks that it can be written before anything is paid. Without it, the manifest
        has the vendor's links, which expire.
    :param storage_conn_id: The Airflow connection of the store, for URLs that do not name one themselves
        (``s3://aws_default@bucket/edited``).
    :param deferrable: Wait in the triggerer, not on the worker. The default is true, whatever Airflow's
        ``[operators] default_deferrable`` says: its own default is false, and then each request would hold a worker for
        as long as OdiRouter works on it.
    :param wait_for_completion: If false, submit only, and return a manifest without outputs;
        :class:`~airflow_provider_odirouter.sensors.request.OdiRouterRequestSensor` waits elsewhere.
    :param poll_interval: Seconds between polls. Default: 5.
    :param timeout: Seconds from the submit to the end of the wait. Default: 900. ``execution_timeout`` counts too, if
        it is shorter. A retry that resumes an earlier try's request has its full ``timeout`` again.
    :param cancel_on_kill: Cancel the request when the task is killed, cleared or marked. Default: true.
    :param cancel_on_timeout: Cancel the request when ``timeout`` has passed, or when it cannot be polled any more and
        no retry follows. Default: true.
    :param durable: Remember the request between tries, also after a crash: a retry waits for a live request, and takes
        the result of one that has succeeded. A cleared task takes a result as well, but cancels a live request and
        submits again. Airflow 3.3 has a store for that; before 3.3, the notes lie beside the outputs, in
        ``{output_path}/.odirouter/``, so that an ``output_path`` is needed that is the same in each try. Default: true.
    :param on_lost_submit: What a retry does if the worker died during the submit, so that a request may or may not have
        been made and paid: ``"submit"`` again, with a warning (default), or ``"fail"`` until the task is cleared.
    :param max_submits: How many submits the task instance may make in all its tries, also after it is cleared. Each
        submit counts that may have created a request. One more is not sent: the task fails, and Airflow does not retry.
        It needs what ``durable`` remembers. Default: no limit.
    """

    template_fields: Sequence[str] = (*EDIT_FIELDS, "odirouter_conn_id", "output_path", "storage_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {}
    images = PathField()
    mask = PathField()

    def __init__(
        self,
        *,
        prompt: str,
        images: ImageSource | Sequence[ImageSource],
        mask: ImageSource | None = None,
        input_fidelity: Literal["high", "low"] | str | None = None,
        n: int | str | None = None,
        size: Literal["1024x1024", "1024x1536", "1536x1024", "auto"] | str | None = None,
        quality: Literal["low", "medium", "high", "auto"] | str | None = None,
        background: Literal["transparent", "opaque", "auto"] | str | None = None,
        output_format: Literal["png", "jpeg", "webp"] | str | None = None,
        output_compression: int | str | None = None,
        moderation: Literal["auto", "low"] | str | None = None,
        user: str | None = None,
        odirouter_conn_id: str = "odirouter_default",
        output_path: PathLike | None = None,
        storage_conn_id: str | None = None,
        deferrable: bool = True,
        wait_for_completion: bool = True,
        poll_interval: float = 5.0,
        timeout: float = 900.0,
        cancel_on_kill: bool = True,
        cancel_on_timeout: bool = True,
        durable: bool = True,
        on_lost_submit: Literal["submit", "fail"] | str = "submit",
        max_submits: int | None = None,
        **kwargs: Any,
    ) -> None:
        # First: the base's __init__ checks all of them together with its own.
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
        super().__init__(
            endpoint=IMAGE_EDIT_ENDPOINT,
            parameters={},
            odirouter_conn_id=odirouter_conn_id,
            output_path=output_path,
            storage_conn_id=storage_conn_id,
            deferrable=deferrable,
            wait_for_completion=wait_for_completion,
            poll_interval=poll_interval,
            timeout=timeout,
            cancel_on_kill=cancel_on_kill,
            cancel_on_timeout=cancel_on_timeout,
            durable=durable,
            on_lost_submit=on_lost_submit,
            max_submits=max_submits,
            **kwargs,
        )

    def check_literal_input(self) -> None:
        """Check the edit, as far as it is known when the Dag is parsed."""
        from airflow_provider_odirouter.models import ImageEdit

        values = self._edit_values()
        set_later = {name for name, value in values.items() if value is SET_DURING_EXECUTION}
        unknown = templated_fields(values) | set_later
        ImageEdit.check(values, unknown=unknown)
        texts = {name: values[name] for name in ("prompt", "user") if name not in unknown}
        json_object(self.endpoint, texts, name="")

    def request_parameters(self) -> Mapping[str, Any]:
        """Return the checked parameters, with local pictures as base64; one error names all that is wrong with both."""
        from airflow_provider_odirouter.errors import InvalidParametersError, StorageError
        from airflow_provider_odirouter.images.inputs import read_inputs
        from airflow_provider_odirouter.models import ImageEdit

        values = self._edit_values()
        try:
            edit = self._edit = ImageEdit.parse(values)
        except InvalidParametersError as error:
            images, mask = ImageEdit.pictures(values, error.problems)
            with suppress(StorageError):  # of pictures that may be readable later: the parameters will be the same
                inputs = read_inputs(images, mask, storage_conn_id=self.storage_conn_id)
                raise InvalidParametersError(self.endpoint, [*error.problems, *inputs.problems]) from None
            raise
        if unset := [name for name, value in values.items() if value is not None and is_unset(value)]:
            log.info("Not sent, since their templates rendered to nothing: %s.", ", ".join(unset))
        inputs = read_inputs(edit.images, edit.mask, storage_conn_id=self.storage_conn_id)
        if inputs.problems:
            raise InvalidParametersError(self.endpoint, inputs.problems)
        for remark in (*relative_remarks(edit.images, edit.mask), *inputs.remarks):
            log.warning(remark)
        self._digests = {self._path(source): digest for source, digest in inputs.sha256.items()}
        return edit.to_parameters() | inputs.parameters()

    def input_sources(self) -> Sequence[str]:
        """Return the images and the mask, as the user gave them."""
        edit = self._parsed()
        return (*edit.images, *([edit.mask] if edit.mask else []))

    def record_fields(self) -> Mapping[str, Any]:
        """Return the edit's parameters, and the pictures as paths that mean the same in any process."""
        edit = self._parsed()
        parameters = edit.to_parameters()
        del parameters["images"]
        parameters.pop("mask", None)
        return {
            "images": tuple(map(self._path, edit.images)),
            "mask": self._path(edit.mask) if edit.mask else None,
            "sha256": self._digests,
            "parameters": parameters,
        }

    def _path(self, source: str) -> str:
        from airflow_provider_odirouter.images.inputs import portable_source

        return portable_source(source, self.storage_conn_id)

    def _parsed(self) -> ImageEdit:
        """Return the edit that was sent; in a process that resumes after a deferral, parse it again."""
        from airflow_provider_odirouter.models import ImageEdit

        return self._edit or ImageEdit.parse(self._edit_values())

    def _edit_values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in EDIT_FIELDS}
