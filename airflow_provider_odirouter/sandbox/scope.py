"""The current settings, and the current values of those that count down."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from random import Random
from typing import Any

from airflow_provider_odirouter.sandbox.refusals import RefusalError
from airflow_provider_odirouter.sandbox.settings import Action, SandboxSettings
from airflow_provider_odirouter.sandbox.wire import Answer

COUNTDOWNS = frozenset({"balance", "fail_first", "drop_next", "server_errors", "result_pending"})
_FAULT_MESSAGE = "The sandbox is set to fail this call."


def draw(span: float | tuple[float, float], random: Random) -> float:
    """Draw a number from a span."""
    return random.uniform(*span) if isinstance(span, tuple) else span


class Scope:
    """
    Current settings: of the whole sandbox, or of one request that brought its own.

    :param settings: The settings.
    :param now: The clock's time, from which ``server_error_seconds`` counts.
    """

    def __init__(self, settings: SandboxSettings, now: float) -> None:
        self.settings = settings
        self.random = Random(settings.seed)
        self._left: dict[str, float | None] = {name: getattr(settings, name) for name in COUNTDOWNS}
        self._calls = 0
        self._errors_until = now + settings.server_error_seconds

    def configure(self, changes: Mapping[str, Any], now: float) -> None:
        """
        Change some settings.

        :param changes: New values by name; the countdowns among them start again.
        :param now: The clock's time.
        """
        self.settings = SandboxSettings.model_validate({**self.settings.model_dump(), **changes})
        self._left.update({name: getattr(self.settings, name) for name in COUNTDOWNS & changes.keys()})
        if "seed" in changes:
            self.random = Random(self.settings.seed)
        if "drop_every" in changes:
            self._calls = 0
        if "server_error_seconds" in changes:
            self._errors_until = now + self.settings.server_error_seconds

    def derive(self, changes: Mapping[str, Any], now: float) -> Scope:
        """
        Copy this scope for one request, with some settings changed, and with countdowns of its own.

        :param changes: New values by name.
        :param now: The clock's time.
        """
        own = deepcopy(self)
        own.configure(changes, now)
        return own

    def left(self, countdown: str) -> float | None:
        """Return the current value of a countdown; ``None`` never runs out."""
        return self._left[countdown]

    def take(self, countdown: str, amount: float = 1) -> bool:
        """Subtract an amount from a countdown, and return ``True``, if that much is left."""
        left = self._left[countdown]
        if left is not None and left < amount:
            return False
        self._left[countdown] = None if left is None else left - amount
        return True

    def fault(self, action: Action, now: float) -> Fault | None:
        """
        Decide whether a call fails, and how.

        :param action: The kind of call.
        :param now: The clock's time.
        """
        settings = self.settings
        if action not in settings.fault_actions:
            return None
        self._calls += 1
        if settings.hang:
            return Fault(Answer(delivery="hang"), settings.fault_after_effect)
        if settings.redirect_to is not None:
            return Fault(Answer(307, {"location": settings.redirect_to}), after_effect=False)
        if self.take("drop_next") or (settings.drop_every and self._calls % settings.drop_every == 0):
            if settings.drop_mode == "half":
                return Fault(None, after_effect=True)
            after = settings.drop_mode == "after"
            return Fault(Answer(delivery="close" if after else "reset"), after)
        if self.take("server_errors") or now < self._errors_until or self._fails_at_random():
            refusal = RefusalError(settings.server_error_status, _FAULT_MESSAGE, code="INTERNAL_SERVER_ERROR")
            return Fault(refusal.answer(settings.server_error_body, "sandbox"), settings.fault_after_effect)
        return None

    def _fails_at_random(self) -> bool:
        # Without a rate, draw no number: it would change the random numbers of everything else.
        rate = self.settings.server_error_rate
        return rate > 0 and self.random.random() < rate


class Fault:
    """
    An injected failure of a call.

    :param answer: What the caller gets instead of the right answer; ``None``: half of the right answer.
    :param after_effect: Whether the call takes effect before it fails.
    """

    def __init__(self, answer: Answer | None, after_effect: bool) -> None:
        self._answer = answer
        self.after_effect = after_effect

    def apply_to(self, answer: Answer) -> Answer:
        """Return what the caller gets instead of the right answer."""
        return self._answer or replace(answer, delivery="half")
