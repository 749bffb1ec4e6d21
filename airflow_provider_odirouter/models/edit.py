"""What an edit is: the parameters, and the rules that they must keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from airflow_provider_odirouter.errors import InvalidParametersError, Problem
from airflow_provider_odirouter.models.sources import Source, Sources, not_blank, whole

IMAGE_EDIT_ENDPOINT = "gpt_image_1_edit"


class ImageEdit(BaseModel):
    """
    The parameters of one ``gpt_image_1_edit`` request, as the vendor's page for the endpoint defines them.

    A field that is ``None`` is not sent: the server's defaults stay the server's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    ENDPOINT: ClassVar[str] = IMAGE_EDIT_ENDPOINT

    prompt: Annotated[str, Field(max_length=32_000), AfterValidator(not_blank)]
    """What to do, 1 to 32,000 characters."""
    images: Sources
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
    user: Annotated[str, AfterValidator(whole)] | None = None
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
        return shown if len(shown) <= 60 else shown[:57] + "…"
    except Exception:  # noqa: BLE001 - an integer of thousands of digits, a list of lists, a class of the user's own
        return f"this {type(value).__name__}"
