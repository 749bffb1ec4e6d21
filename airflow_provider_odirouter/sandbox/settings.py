"""Everything about the sandbox that can be set from outside, also while it runs."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Action = Literal["submit", "status", "result", "cancel", "file", "other"]
ErrorBody = Literal["documented", "object", "string", "detail", "envelope", "message", "html", "empty"]
StatusWords = Literal["documented", "lower", "queued", "pending", "failed", "cancelled", "unknown"]

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

    Times are seconds of the sandbox's clock; a time given as ``(low, high)`` is drawn at random, the same again for
    the same ``seed``. Settings that count down (``server_errors``, ``drop_next``, ``fail_first``, ``balance``) start
    anew whenever they are set; ``None`` never runs out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    api_key: str = Field(default="sandbox-key", min_length=1)
    """The one key that is let in."""
    endpoints: Annotated[tuple[str, ...], BeforeValidator(_read_words)] = DEFAULT_ENDPOINTS
    """Models that exist; the others answer ``App not found``."""
    seed: int = 0
    """Start of everything that is drawn at random, request ids excepted."""

    queue_seconds: Span = 1.0
    """How long a request waits in the queue."""
    run_seconds: Span = 3.0
    """How long a request runs."""
    cancel_seconds: Seconds = 0.0
    """How long an accepted cancel takes; a request that is through sooner wins the race."""
    not_found_seconds: Seconds = 0.0
    """How long after its submit a request is still ``Request not found``."""
    status_words: StatusWords = "documented"
    """Words for a request's state: as documented, lower case, other words for waiting (``queued``, ``pending``),
    terminal words for failures (``failed`` says ``CANCELED``, ``cancelled`` ``CANCELLED``), or words nobody knows."""

    balance: Annotated[float, Field(ge=0)] | None = None
    """Credits left to spend."""
    price: Annotated[float, Field(ge=0)] = 1.0
    """Credits that an accepted submit costs."""
    no_balance_shape: Literal["402", "403"] = "402"
    """A submit without balance: 402 with code 40201, or 403 ``insufficient balance``."""
    rate_limit: Annotated[float, Field(gt=0)] | None = None
    """Calls a second, over a sliding window."""
    retry_after_form: Literal["seconds", "date", "absent"] = "seconds"
    """How a 429 says when to come back."""

    error_type: str | None = None
    """Requests submitted from now on end with this ``error_type``."""
    error_message: str = "The sandbox was told to fail this request."
    """The words of that error."""
    error_shape: Literal["string", "message", "error_message", "absent"] = "string"
    """The status's ``error``: a string, an object with ``code`` and either key, or missing."""
    fail_first: Countdown | None = None
    """Let only so many requests fail with ``error_type``."""
    error_body: ErrorBody = "documented"
    """Body of every refusal (4xx): its documented shape, or always this one."""
    rejection_status: Literal[400, 422] = 422
    """Status code for wrong parameters."""

    submit_shape: Literal["full", "bare", "no_id", "html", "empty"] = "full"
    """Body of an accepted submit."""
    answer_origin: str | None = None
    """Another origin (``https://host``) for the URLs that a submit and a status name, which nobody should trust."""
    result_shape: Literal["outputs", "output", "no_url", "none"] = "outputs"
    """Body of a result: either documented list, records without ``url``, or no list at all."""
    cancel_supported: bool = True
    """False: cancels answer 405."""

    file_expiry_seconds: Seconds = 3600.0
    """How long the file URLs of one result answer live."""
    file_gone_status: Literal[403, 404, 410] = 403
    """Status code of an expired file URL."""
    file_fault: Literal["none", "404", "endless", "truncated", "html", "slow"] = "none"
    """What is wrong with files: missing, never ending, cut off half way, an HTML page instead, or trickling."""
    slow_seconds: Seconds = 10.0
    """How long a trickling file takes."""
    fetch_any_host: bool = False
    """True: input URLs on any host are fetched. False: those off loopback become a labelled stand-in picture."""

    latency_seconds: Span = 0.0
    """How long every answer takes."""
    fault_actions: Annotated[frozenset[Action], BeforeValidator(_read_words)] = frozenset(
        {"submit", "status", "result", "cancel"}
    )
    """The calls that the faults below strike."""
    fault_after_effect: bool = False
    """True: server errors and hangs come after the call took effect, so that only its answer is lost."""
    server_errors: Countdown | None = 0
    """The next so many calls end in a server error."""
    server_error_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of calls that end in a server error."""
    server_error_seconds: Seconds = 0.0
    """From when this is set, calls end in a server error for so long."""
    server_error_status: Literal[500, 502, 503, 504] = 503
    """Status code of a server error."""
    server_error_body: ErrorBody = "html"
    """Body of a server error."""
    drop_next: Countdown | None = 0
    """The next so many connections break."""
    drop_every: Annotated[int, Field(ge=1)] | None = None
    """Every so manyth connection breaks."""
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
