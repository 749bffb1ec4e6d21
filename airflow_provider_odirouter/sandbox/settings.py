"""All settings of the sandbox. They can be changed while it runs."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

Action = Literal["submit", "status", "result", "cancel", "file", "other"]
ErrorBody = Literal["documented", "object", "string", "detail", "envelope", "message", "html", "empty"]
StatusWords = Literal["documented", "lower", "queued", "pending", "failed", "cancelled", "unknown"]
ResultShape = Literal["outputs", "output", "images", "image", "b64_json", "data_url", "relative", "no_url", "none"]

DEFAULT_ENDPOINTS = (
    "gpt_image_1_edit",
    "gpt_image_1",
    "gpt_image_2",
    "gpt_image_2_edit",
    "nano_banana_2",
    "free-nano-banana-2",
    "kling-v1-image",
)


def _read_span(value: Any) -> Any:
    """Read ``"2-6"`` as a range; leave the rest to pydantic."""
    match = re.fullmatch(r"\s*([\d.]+)\s*-\s*([\d.]+)\s*", value) if isinstance(value, str) else None
    return match.groups() if match else value


def _read_words(value: Any) -> Any:
    """Read ``"status,result"`` as a list."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Span = Annotated[Seconds | tuple[Seconds, Seconds], BeforeValidator(_read_span)]
Countdown = Annotated[int, Field(ge=0)]


class SandboxSettings(BaseModel):
    """
    How the sandbox behaves.

    Times are seconds of the sandbox's clock. A time given as ``(low, high)`` is drawn at random; the same ``seed``
    draws the same times again. Settings that count down (``server_errors``, ``drop_next``, ``fail_first``, ``balance``)
    start again whenever they are set; ``None`` never runs out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    api_key: str = Field(default="sandbox-key", min_length=1)
    """The only key that is accepted."""
    endpoints: Annotated[tuple[str, ...], BeforeValidator(_read_words)] = DEFAULT_ENDPOINTS
    """Models that exist; a call to another one is answered with ``App not found``."""
    seed: int = 0
    """Seed of all random numbers; request ids are random all the same."""

    queue_seconds: Span = 1.0
    """How long a request waits in the queue."""
    run_seconds: Span = 3.0
    """How long a request runs."""
    cancel_seconds: Seconds = 0.0
    """How long an accepted cancel takes; a request that ends sooner is not cancelled."""
    not_found_seconds: Seconds = 0.0
    """How long after its submit a request is still answered with ``Request not found``."""
    status_words: StatusWords = "documented"
    """Words for a request's state: as documented, lower case, other words for waiting (``queued``, ``pending``),
    terminal words for failures (``failed`` says ``CANCELED``, ``cancelled`` ``CANCELLED``), or words that no client
    knows (``unknown``)."""

    balance: Annotated[float, Field(ge=0)] | None = None
    """Credits left to spend."""
    price: Annotated[float, Field(ge=0)] = 1.0
    """Credits that an accepted submit costs."""
    no_balance_shape: Literal["402", "403"] = "402"
    """A submit without balance: 402 with code 40201, or 403 ``insufficient balance``."""
    rate_limit: Annotated[float, Field(gt=0)] | None = None
    """Calls a second, over a sliding window."""
    max_alive: Annotated[int, Field(ge=1)] | None = None
    """Requests that may be alive at once; a submit beyond that is answered with 429."""
    retry_after_form: Literal["seconds", "date", "absent"] = "seconds"
    """Form of a 429's ``Retry-After`` header."""

    error_type: str | None = None
    """Requests submitted from now on end with this ``error_type``."""
    error_message: str = "The sandbox is set to fail this request."
    """Message of that error."""
    error_shape: Literal["string", "message", "error_message", "absent"] = "string"
    """The status's ``error``: a string, an object with ``code`` and either key, or missing."""
    fail_first: Countdown | None = None
    """Only this many requests fail with ``error_type``."""
    error_body: ErrorBody = "documented"
    """Body of every refusal (4xx): its documented shape, or always this one."""
    rejection_status: Literal[400, 422] = 422
    """Status code for wrong parameters."""

    submit_shape: Literal["full", "bare", "no_id", "html", "empty"] = "full"
    """Body of an accepted submit."""
    answer_origin: str | None = None
    """Another origin (``https://host``) for the URLs in submit and status answers; a client must not trust it."""
    result_shape: ResultShape = "outputs"
    """Body of a result: either documented list, fal.ai's ``images`` or ``image`` (the first one), OpenAI's list with
    ``b64_json``, ``data:`` URLs or links relative to the API's base URL in the documented list, records without
    ``url``, or no list at all."""
    result_pending: Countdown | None = 0
    """This many of the next calls for the result of a request that has ended are refused, as still in progress."""
    cancel_supported: bool = True
    """False: cancels answer 405."""

    file_expiry_seconds: Seconds = 3600.0
    """How long the file URLs of one result answer live."""
    file_expired_status: Literal[403, 404, 410] = 403
    """Status code of an expired file URL."""
    file_format: Literal["ordered", "svg", "avif", "tiff", "bmp", "mp4"] = "ordered"
    """Format of the files: as ordered, or as other models make them; the ``mp4`` holds no film."""
    file_content_type: str | None = None
    """Media type that results and files announce instead of the true one."""
    file_fault: Literal["none", "404", "endless", "truncated", "cut", "empty", "html", "slow"] = "none"
    """What is wrong with files: missing, never ending, broken off half way, without their last byte, empty, an HTML
    page instead, or trickling."""
    slow_seconds: Seconds = 10.0
    """How long a trickling file takes."""
    fetch_any_host: bool = False
    """True: input URLs on any host are fetched. False: those off loopback become a labelled stand-in picture."""

    latency_seconds: Span = 0.0
    """How long every answer takes."""
    fault_actions: Annotated[frozenset[Action], BeforeValidator(_read_words)] = frozenset(
        {"submit", "status", "result", "cancel"}
    )
    """The calls that the faults below apply to."""
    fault_after_effect: bool = False
    """True: server errors and hangs come after the call took effect, so that only its answer is lost."""
    server_errors: Countdown | None = 0
    """This many of the next calls end in a server error."""
    server_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of calls that end in a server error."""
    server_error_seconds: Seconds = 0.0
    """For this long after it is set, calls end in a server error."""
    server_error_status: Literal[500, 502, 503, 504] = 503
    """Status code of a server error."""
    server_error_body: ErrorBody = "html"
    """Body of a server error."""
    drop_next: Countdown | None = 0
    """This many of the next connections break."""
    drop_every: Annotated[int, Field(ge=1)] | None = None
    """One of this many connections breaks: with 3, every third."""
    drop_mode: Literal["before", "after", "half"] = "after"
    """Break before the call takes effect, after it without an answer, or half way through the answer."""
    hang: bool = False
    """Never answer."""
    redirect_to: str | None = None
    """Answer 307 to this URL."""

    @model_validator(mode="after")
    def _check(self) -> SandboxSettings:
        for name in ("queue_seconds", "run_seconds", "latency_seconds"):
            span = getattr(self, name)
            if isinstance(span, tuple) and span[0] > span[1]:
                raise ValueError(f"{name}: the range {span[0]}-{span[1]} ends before it begins")
        if self.fail_first is not None and self.error_type is None:
            raise ValueError("fail_first needs an error_type to fail with")
        return self


def describe_problems(error: ValidationError) -> str:
    """Return what is wrong with settings, in one line for people."""
    return "; ".join(": ".join([*map(str, one["loc"][:1]), one["msg"]]) for one in error.errors())
