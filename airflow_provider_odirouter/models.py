"""
The shapes: what the API answers, what an edit is, what a task returns.

All models are frozen. Those that the vendor fills keep fields that they do not know; those that the user fills refuse
them. This module must never do I/O.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from airflow_provider_odirouter.errors import InvalidParametersError, Problem

IMAGE_EDIT_ENDPOINT = "gpt_image_1_edit"


class Answered(BaseModel):
    """Base of what the vendor fills: unknown fields are kept, never an error."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Submission(Answered):
    """The answer to a submit."""

    request_id: str
    """The service's handle of the request, such as ``mmsu_…``."""


class RequestState(StrEnum):
    """Where a request is. The service's ``COMPLETED`` means success or failure; here these are told apart."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    UNKNOWN = "UNKNOWN"
    """A word that nobody knows: not terminal."""

    @property
    def terminal(self) -> bool:
        """Whether the request has ended."""
        return self in {RequestState.SUCCEEDED, RequestState.FAILED, RequestState.CANCELED}


class Failure(BaseModel):
    """Why a request failed, in the vendor's words."""

    model_config = ConfigDict(frozen=True)

    error_type: str | None = None
    """Such as ``INFERENCE_FAILURE`` or ``CONTENT_BLOCKED``; other words occur."""
    message: str | None = None


class RequestStatus(BaseModel):
    """One look at a request."""

    model_config = ConfigDict(frozen=True)

    state: RequestState
    word: str
    """The vendor's own word for the state."""
    queue_position: int | None = None
    progress: float | None = None
    """From 0 to 1."""
    inference_seconds: float | None = None
    """How long the model worked, in seconds."""
    failure: Failure | None = None


class OutputFile(Answered):
    """One file of a result."""

    type: str | None = None
    """``image`` where the service says so; other endpoints make other things."""
    url: str
    """Where the file lies for a while. It expires; when is not documented."""
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = None
    width: int | None = None
    height: int | None = None


class RequestResult(BaseModel):
    """The outputs of a request that succeeded, in order."""

    model_config = ConfigDict(frozen=True)

    outputs: tuple[OutputFile, ...]
    without_link: int = 0
    """How many outputs the result lists without saying where they are."""
    metadata: dict[str, Any] = {}


class CancelOutcome(StrEnum):
    """What a cancel came to. All of these are normal."""

    REQUESTED = "REQUESTED"
    """The service accepted the cancel."""
    ALREADY_COMPLETED = "ALREADY_COMPLETED"
    NOT_FOUND = "NOT_FOUND"
    UNSUPPORTED = "UNSUPPORTED"
    """The endpoint cannot cancel: the request runs to its end, and is paid."""


class Ending(StrEnum):
    """How the wait for a request ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    """By somebody else than the waiter."""
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """The service does not know the request any more."""
    UNWATCHED = "unwatched"
    """Looking failed too often in a row, or cannot succeed; the request may be alive."""


class RequestEvent(BaseModel):
    """What a trigger tells the task when the wait is over. It goes through Airflow's database: plain JSON, no key."""

    model_config = ConfigDict(frozen=True)

    ending: Ending
    endpoint: str
    request_id: str
    submitted_at: datetime | None = None
    """``None``: another task has submitted the request."""
    at: datetime
    """When the ending was seen."""
    inference_seconds: float | None = None
    failure: Failure | None = None
    reason: str | None = None
    """Why looking failed."""
    vendor: str | None = None
    """The vendor's own words about that."""
    cancel: CancelOutcome | None = None
    """What the waiter's own cancel came to, when it gave up."""
    cancel_error: str | None = None
    """Why that cancel failed."""

    def given_up(self, cancel: CancelOutcome | Exception) -> RequestEvent:
        """Return the event with what became of the request when the waiter cancelled it."""
        if isinstance(cancel, CancelOutcome):
            return self.model_copy(update={"cancel": cancel})
        return self.model_copy(update={"cancel_error": getattr(cancel, "what", str(cancel))})


def _text_of_path(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _pictures(value: object) -> object:
    """Take one picture, or any collection of them; count here, since pydantic counts the good ones only."""
    if isinstance(value, str | os.PathLike):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        value = tuple(value)
        if not 1 <= len(value) <= 16:
            raise ValueError(f"holds {len(value)} pictures; the endpoint takes 1 to 16")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


Source = Annotated[str, BeforeValidator(_text_of_path), AfterValidator(_not_blank)]
"""Where an input picture comes from: an ``http(s)`` URL, or a path that ``ObjectStoragePath`` understands."""


class ImageEdit(BaseModel):
    """
    The parameters of one ``gpt_image_1_edit`` request, as the vendor's page for the endpoint defines them.

    A field that is ``None`` is not sent: the server's defaults stay the server's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    ENDPOINT: ClassVar[str] = IMAGE_EDIT_ENDPOINT

    prompt: Annotated[str, Field(max_length=32_000), AfterValidator(_not_blank)]
    """What to do, 1 to 32,000 characters."""
    images: Annotated[tuple[Source, ...], BeforeValidator(_pictures)]
    """The pictures to edit, 1 to 16."""
    mask: Source | None = None
    """Its transparent part is what may be edited; of the same format and size as the first image."""
    input_fidelity: Literal["high", "low"] | None = None
    """How closely the input is kept. Server's default: ``low``."""
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    """How many pictures to make, 1 to 10. Server's default: 1."""
    size: Literal["1024x1024", "1024x1536", "1536x1024", "auto"] | None = None
    """Server's default: ``auto``."""
    quality: Literal["low", "medium", "high", "auto"] | None = None
    """Server's default: ``auto``."""
    output_format: Literal["png", "jpeg", "webp"] | None = None
    """Server's default: ``png``."""
    background: Literal["transparent", "opaque", "auto"] | None = None
    """``transparent`` needs ``png`` or ``webp``. Server's default: ``auto``."""
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    """0 to 100, only with ``jpeg`` or ``webp``. Server's default: 100."""
    moderation: Literal["auto", "low"] | None = None
    """Server's default: ``auto``."""
    user: str | None = None
    """Identifies the end user to the vendor."""

    # Rules between fields are validators of the later field, not of the model: pydantic runs a model's validators only
    # when all fields are good, and every broken rule is to be reported at once.

    @field_validator("background")
    @classmethod
    def _transparency_needs_alpha(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value == "transparent" and info.data.get("output_format") == "jpeg":
            raise ValueError("'transparent' needs output_format 'png' or 'webp', not 'jpeg'")
        return value

    @field_validator("output_compression")
    @classmethod
    def _compression_needs_lossy_format(cls, value: int | None, info: ValidationInfo) -> int | None:
        undecided = "output_format" in (info.context or ()) or "output_format" not in info.data
        if value is not None and not undecided and info.data["output_format"] in (None, "png"):
            raise ValueError("works only with output_format 'jpeg' or 'webp'; the default is 'png'")
        return value

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> ImageEdit:
        """
        Make an edit of parameters; ``None`` means that a field is not set.

        :raises InvalidParametersError: If rules are broken; it names them all.
        """
        try:
            return cls.model_validate(_set_fields(values))
        except ValidationError as error:
            raise InvalidParametersError(cls.ENDPOINT, map(_problem, error.errors(include_url=False))) from None

    @classmethod
    def check(cls, values: Mapping[str, Any], *, unknown: frozenset[str]) -> None:
        """
        Check parameters of which some are not known yet.

        :param unknown: Fields whose value is a template: nothing is said about them.
        :raises InvalidParametersError: If the known values break rules; it names them all.
        """
        known = {name: value for name, value in _set_fields(values).items() if name not in unknown}
        try:
            cls.model_validate(known, context=unknown)
        except ValidationError as error:
            details = [detail for detail in error.errors(include_url=False) if detail["loc"][0] not in unknown]
            if details:
                raise InvalidParametersError(cls.ENDPOINT, map(_problem, details)) from None

    def to_parameters(self) -> dict[str, Any]:
        """Return what the user set, as the API's JSON object (with images as they were given)."""
        return self.model_dump(mode="json", exclude_none=True)


def _set_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _problem(detail: Mapping[str, Any]) -> Problem:
    """Word one of pydantic's error details as a broken rule."""
    field, *rest = detail["loc"]
    name = str(field) + "".join(f"[{index}]" for index in rest if isinstance(index, int))
    value = detail["input"]
    match detail["type"]:
        case "missing":
            return Problem(name, "is required")
        case "extra_forbidden":
            return Problem(name, "is not a parameter of this endpoint")
        case "string_too_long":
            return Problem(name, f"has {len(value):,} characters; at most {detail['ctx']['max_length']:,}")
        case "tuple_type":
            return Problem(name, f"should be a list of pictures, not {_shown(value)}")
        case "value_error":
            return Problem(name, str(detail["ctx"]["error"]))
        case _:
            return Problem(name, f"{detail['msg'].removeprefix('Input ')}, not {_shown(value)}")


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list of lists of lists …
        return f"this {type(value).__name__}"
    return shown if len(shown) <= 60 else shown[:57] + "…"


class LandedOutput(BaseModel):
    """One output in the manifest."""

    model_config = ConfigDict(frozen=True)

    path: str | None = None
    """Where the file landed."""
    url: str | None = None
    """The vendor's link, which expires; only where nothing was landed."""
    content_type: str | None = None
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None
    sha256: str | None = None


class Manifest(BaseModel):
    """What a task returns: small and JSON. Pictures never go through XCom."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    endpoint: str
    outputs: tuple[LandedOutput, ...] = ()
    submitted_at: datetime | None = None
    completed_at: datetime | None = None
    """When a look first saw the request completed; the service does not tell the moment itself."""
    inference_seconds: float | None = None
    metadata: dict[str, Any] = {}

    def to_xcom(self) -> dict[str, Any]:
        """Return the manifest as plain JSON; an output has either ``path`` or ``url``."""
        plain = self.model_dump(mode="json")
        for output in plain["outputs"]:
            del output["url" if output["url"] is None else "path"]
        return plain
