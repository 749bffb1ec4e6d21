"""The parameters of an edit, and their rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from numbers import Number
from typing import Annotated, Any, Literal

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

from airflow_provider_odirouter import IMAGE_EDIT_ENDPOINT
from airflow_provider_odirouter.errors import InvalidParametersError, Problem
from airflow_provider_odirouter.json_values import surrogate_problem, text_problem
from airflow_provider_odirouter.parameter_checks import is_unset, unset_problem
from airflow_provider_odirouter.redaction import shorten_urls
from airflow_provider_odirouter.text_paths import as_text, is_path

MAX_IMAGES = 16
REQUIRED_FIELDS = frozenset({"prompt", "images"})


def _manifest_outputs(value: object) -> Sequence[object] | None:
    """Return the paths or URLs of a manifest's outputs; ``None``: the value is not a manifest."""
    outputs = value.get("outputs") if isinstance(value, Mapping) else None
    if not isinstance(outputs, list | tuple):
        return None
    return [one.get("path") or one.get("url") or one if isinstance(one, Mapping) else one for one in outputs]


def _to_source(value: object) -> object:
    """Turn a path into text, and a manifest into its only output."""
    if is_path(value):
        return as_text(value)
    if isinstance(value, Mapping) and (note := value.get("note")):
        raise ValueError(f"is an output without a file: {note}")
    outputs = _manifest_outputs(value)
    if outputs is None:
        return value
    if not outputs:
        raise ValueError(
            "is a manifest without outputs: its task only submitted the request (wait_for_completion=False); use the "
            "manifest of the task that waited for it"
        )
    if len(outputs) > 1:
        raise ValueError(f"is a manifest with {len(outputs)} outputs; name one of them")
    return _to_source(outputs[0])


def _to_sources(value: object) -> object:
    """Turn a picture, a manifest or a collection of them into pictures. pydantic would count only the valid ones."""
    _reject_unset(value)
    if isinstance(value, str) or is_path(value) or _manifest_outputs(value) is not None:
        value = (value,)
    if isinstance(value, AbstractSet) and not isinstance(value, MappingView):
        raise ValueError(  # noqa: TRY004 - pydantic expects it
            "is a set, which has no order: a retry could send another one, and pay again; give a list"
        )
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        # A manifest without outputs stays in the list: _to_source() reports it.
        value = tuple(source for item in value for source in _manifest_outputs(item) or (item,))
        if not 1 <= len(value) <= MAX_IMAGES:
            raise ValueError(f"holds {len(value)} pictures; the endpoint takes 1 to {MAX_IMAGES}")
    return value


def _reject_lone_surrogate(value: str) -> str:
    if problem := surrogate_problem(value):
        raise ValueError(problem)
    return value


def _reject_unstorable(value: object) -> object:
    if isinstance(value, str) and (problem := text_problem(value)):
        raise ValueError(problem)
    return value


def _reject_unset(value: object) -> object:
    if value is not None and (problem := unset_problem(value)):  # pydantic reports None itself
        raise ValueError(problem)
    return value


def _reject_number(value: object) -> object:
    """Refuse what ``coerce_numbers_to_str`` would make a file's name."""
    if isinstance(value, Number):
        raise ValueError(f"must be a path or a URL, not {_short_repr(value)}")  # noqa: TRY004 - pydantic expects it
    return value


def _reject_infinite(value: object) -> object:
    """Refuse what ``coerce_numbers_to_str`` would make the word ``inf``."""
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"must be a text, not {_short_repr(value)}")
    return value


def _reject_flag(value: object) -> object:
    """Refuse what pydantic would count as 1 or 0."""
    if isinstance(value, bool):
        raise ValueError(f"must be a whole number, not {value}")  # noqa: TRY004 - pydantic expects it
    return value


# The validators before pydantic's own run from the last to the first.
Source = Annotated[
    str,
    BeforeValidator(_reject_unstorable),
    BeforeValidator(_reject_number),
    BeforeValidator(_reject_unset),
    BeforeValidator(_to_source),
]
"""A picture: an ``http(s)`` URL, or a path that ``ObjectStoragePath`` understands; or the manifest with that output."""

Sources = Annotated[tuple[Source, ...], BeforeValidator(_to_sources)]
"""1 to 16 pictures."""

WholeNumber = Annotated[int, BeforeValidator(_reject_flag)]


class ImageEdit(BaseModel):
    """
    The parameters of one ``gpt_image_1_edit`` request, as the vendor's page for the endpoint defines them.

    A field that is not set is not sent: the server's defaults stay the server's. What counts as not set, see
    :func:`~airflow_provider_odirouter.parameter_checks.is_unset`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    prompt: Annotated[
        str,
        Field(max_length=32_000),
        BeforeValidator(_reject_infinite),
        BeforeValidator(_reject_unset),
    ]
    """What to do, 1 to 32,000 characters."""
    images: Sources
    """The pictures to edit, 1 to 16."""
    mask: Source | None = None
    """Its transparent part may be edited. It has the format and the size of the first image."""
    input_fidelity: Literal["high", "low"] | None = None
    """How closely the output keeps to the input. Server's default: ``low``."""
    n: Annotated[WholeNumber, Field(ge=1, le=10)] | None = None
    """How many pictures to make, 1 to 10. Server's default: 1."""
    size: Literal["1024x1024", "1024x1536", "1536x1024", "auto"] | None = None
    """Server's default: ``auto``."""
    quality: Literal["low", "medium", "high", "auto"] | None = None
    """Server's default: ``auto``."""
    output_format: Literal["png", "jpeg", "webp"] | None = None
    """Server's default: ``png``."""
    background: Literal["transparent", "opaque", "auto"] | None = None
    """``transparent`` needs ``png`` or ``webp``. Server's default: ``auto``."""
    output_compression: Annotated[WholeNumber, Field(ge=0, le=100)] | None = None
    """0 to 100, only with ``jpeg`` or ``webp``. Server's default: 100."""
    moderation: Literal["auto", "low"] | None = None
    """Server's default: ``auto``."""
    user: Annotated[str, BeforeValidator(_reject_infinite), AfterValidator(_reject_lone_surrogate)] | None = None
    """Identifies the end user to the vendor."""

    # Rules between fields are validators of the later field, not of the model: pydantic runs a model's validators only
    # if all fields are valid, but every broken rule must be reported at once.

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
        Build an edit from parameters, of which some may be unset.

        :raises InvalidParametersError: If rules are broken; it lists all of them.
        """
        try:
            return cls.model_validate(_set_fields(values))
        except ValidationError as error:
            raise InvalidParametersError(
                IMAGE_EDIT_ENDPOINT, map(_problem_of, error.errors(include_url=False))
            ) from None

    @classmethod
    def pictures(cls, values: Mapping[str, Any], problems: Iterable[Problem]) -> tuple[tuple[str, ...], str | None]:
        """
        Return the images and the mask of parameters that break rules, as far as these rules are about others.

        :param problems: The broken rules.
        """
        broken = {problem.field.partition("[")[0] for problem in problems}
        if "images" in broken or "images" not in values:
            return (), None
        mask = None if "mask" in broken else values.get("mask")
        edit = cls.parse({"prompt": "any", "images": values["images"], "mask": mask})
        return edit.images, edit.mask

    @classmethod
    def check(cls, values: Mapping[str, Any], *, unknown: frozenset[str]) -> None:
        """
        Check parameters of which some are still templates.

        :param unknown: The names of the fields that are templates: they are not checked.
        :raises InvalidParametersError: If the other values break rules; it lists all of them.
        """
        known = {name: value for name, value in _set_fields(values).items() if name not in unknown}
        try:
            cls.model_validate(known, context=unknown)
        except ValidationError as error:
            details = [detail for detail in error.errors(include_url=False) if detail["loc"][0] not in unknown]
            if details:
                raise InvalidParametersError(IMAGE_EDIT_ENDPOINT, map(_problem_of, details)) from None

    def to_parameters(self) -> dict[str, Any]:
        """Return the fields that are set as the API's JSON object; the images are still paths or URLs."""
        return self.model_dump(mode="json", exclude_none=True)


def _set_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is unset; but a required field stays, to be reported with its value."""
    return {
        name: value
        for name, value in values.items()
        if not is_unset(value) or (name in REQUIRED_FIELDS and value is not None)
    }


def _problem_of(detail: Mapping[str, Any]) -> Problem:
    """Turn one of pydantic's error details into a broken rule."""
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
            return Problem(name, f"should be a list of pictures, not {_short_repr(value)}")
        case "int_type" | "int_parsing" | "int_from_float" | "finite_number":
            return Problem(name, f"must be a whole number, not {_short_repr(value)}")
        case "value_error":
            return Problem(name, str(detail["ctx"]["error"]))
        case _:
            return Problem(name, f"{detail['msg'].removeprefix('Input ')}, not {_short_repr(value)}")


def _short_repr(value: object) -> str:
    try:
        shown: str = shorten_urls(repr(value))
        return shown if len(shown) <= 60 else shown[:57] + "…"
    except Exception:  # noqa: BLE001 - an integer of thousands of digits, deep lists, a class of the user
        return f"this {type(value).__name__}"
