"""How many requests may be alive, if the service allows fewer than the task does. Pure: time is passed in."""

from __future__ import annotations

from airflow_provider_odirouter.protocol import Action
from airflow_provider_odirouter.protocol.retries import FIRST_PAUSE, MAX_PAUSE, MAX_RATE_LIMITED_SECONDS


class SubmitPace:
    """
    When the next edit may be submitted.

    A ``429`` may mean two things, and its answer does not tell which: too many calls a second, or too many requests
    alive. So the pace first takes the number of requests that are alive for the limit, and sends the next edit as soon
    as one has ended. After a pause it sends a single submit beyond that number. If the service takes it, the number
    doubles.

    :param max_alive: The task's own limit.
    """

    def __init__(self, max_alive: int) -> None:
        self._max_alive = max_alive
        self._allowed = max_alive
        self._refused_in_a_row = 0
        self._refused_since: float | None = None
        self._not_before = 0.0
        """No submit at all before: the service has asked for that."""
        self._beyond_from = 0.0
        """From then on, one submit beyond what is allowed may be tried."""

    def may_submit(self, *, alive: int, submitting: int, now: float) -> bool:
        """
        Return whether one more edit may be submitted.

        :param alive: Requests that may be running.
        :param submitting: Submits that are under way.
        """
        if now < self._not_before or alive + submitting >= self._max_alive:
            return False
        return alive + submitting < self._allowed or (not submitting and now >= self._beyond_from)

    def note_submitted(self, *, alive: int) -> None:
        """
        Note a submit that the service has taken.

        :param alive: Requests that may be running, the new one among them.
        """
        self._refused_in_a_row, self._refused_since = 0, None
        if alive > self._allowed:
            self._allowed = min(2 * alive, self._max_alive)

    def note_rate_limited(self, retry_after: float | None, *, alive: int, now: float) -> None:
        """
        Note a ``429``.

        :param retry_after: Seconds, if the service has asked for them.
        """
        if now >= self._beyond_from:  # submits that were refused side by side count once
            self._refused_in_a_row += 1
        if self._refused_since is None:
            self._refused_since = now
        self._allowed = alive
        self._not_before = now + (retry_after or 0.0)
        pause = min(FIRST_PAUSE * 2.0 ** (self._refused_in_a_row - 1), MAX_PAUSE)
        self._beyond_from = now + max(pause, retry_after or 0.0)

    def gives_up(self, *, alive: int, now: float) -> bool:
        """Return whether the service has refused every submit for so long, with no request alive, that none is due."""
        return (
            not alive
            and self._refused_since is not None
            and now - self._refused_since >= MAX_RATE_LIMITED_SECONDS[Action.SUBMIT]
        )
