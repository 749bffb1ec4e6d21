"""The root of the tree, and what is found before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NamedTuple


class OdiRouterError(Exception):
    """
    Base of all errors of this provider.

    The text names, in this order: what happened, the vendor's own words, the request id, what to do.

    :param what: What happened, as a sentence.
    :param vendor: The vendor's own words, if there are any.
    :param request_id: The request that it is about, if there is one.
    :param advice: What the user should do; the class has a default.
    """

    passing: ClassVar[bool] = False
    """Whether the same call may succeed a moment later."""
    retry_helps: ClassVar[bool] = True
    """Whether a new try of the Airflow task can cure it."""
    request_over: bool = False
    """Whether nothing is left of the request that a new try could wait for or fetch."""
    advice: str = ""

    def __init__(
        self,
        what: str,
        *,
        vendor: str | None = None,
        request_id: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.vendor = vendor
        self.request_id = request_id
        if advice is not None:
            self.advice = advice

    def __str__(self) -> str:
        parts = [self.what]
        if self.vendor:
            parts.append(f"OdiRouter says: “{self.vendor}”.")
        if self.request_id:
            parts.append(f"Request: {self.request_id}.")
        if self.advice:
            parts.append(self.advice)
        return ("\n" if "\n" in self.what else " ").join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are made again from their positional arguments alone, which would lose the rest.
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[OdiRouterError], args: tuple[object, ...], state: dict[str, object]) -> OdiRouterError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


MOST_LINES = 200
"""Broken rules in one text: a list of thousands that are wrong is wrong in the same way, mostly."""


class Problem(NamedTuple):
    """One broken rule."""

    field: str
    """The parameter, with its index where it is one of several: ``images[2]``."""
    message: str
    """The rule, what was given instead, and what to do where that is not plain."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidParametersError(OdiRouterError, ValueError):
    """
    Parameters or input pictures break rules of the endpoint. With them, nothing was sent, nothing was paid.

    :param endpoint: The endpoint whose rules are broken.
    :param problems: Every broken rule.
    """

    retry_helps = False
    advice = "Correct this; nothing was sent, nothing was paid, and a retry would fail in the same way."
    advice_after_first_try = "Correct this; this try has submitted nothing, and a retry would fail in the same way."
    """An earlier try may have paid."""

    def __init__(self, endpoint: str, problems: Iterable[Problem]) -> None:
        self.endpoint = endpoint
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems[:MOST_LINES])
        if count > MOST_LINES:
            lines += f"\n  … and {count - MOST_LINES:,} more"
        super().__init__(f"{count} parameter{'s' if count != 1 else ''} of {endpoint} cannot be used:{lines}")


class ConnectionSettingsError(OdiRouterError):
    """The Airflow connection has no API key, or holds something that cannot be used."""

    retry_helps = False
    advice = "Correct the connection (Admin → Connections) and clear the task."


class EnvironmentSettingsError(ConnectionSettingsError):
    """A variable of the process's environment cannot be used, such as ``HTTPS_PROXY`` or ``SSL_CERT_FILE``."""

    retry_helps = True
    advice = (
        "Correct the environment of the workers and of the triggerer, and restart them; a retry helps then, or on a "
        "worker whose environment is right."
    )


class ConnectionNotFoundError(ConnectionSettingsError):
    """Airflow does not find the connection: it says the same of a secrets backend that is down for a moment."""

    passing = True
    retry_helps = True
    advice = "Create the connection, or name one that exists; a retry helps only if a secrets backend was down."


class NotOwnerError(Exception):
    """
    This process no longer acts for its task: it must submit, cancel and write nothing more.

    No :class:`OdiRouterError`: who handles what a call or a request came to must let this pass.
    """


class SubmitStoppedError(RuntimeError):
    """A submit was certainly not sent: the task was killed before. No :class:`OdiRouterError`, as above."""
