"""What the sandbox saw: the one witness whom Airflow cannot mislead."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from airflow_provider_odirouter.sandbox import JournalEntry, Sandbox

PROVIDER = "airflow-provider-odirouter/"


class Ending(Enum):
    """What became of a request."""

    ALIVE = "alive"
    CANCELED = "cancelled"
    FAILED = "failed"
    FETCHED = "fetched"
    ABANDONED = "done, but no task fetched its result"


@dataclass(frozen=True)
class Seen:
    """A request that was accepted, and paid. Times are epoch seconds."""

    request_id: str
    prompt: str
    submitted_at: float
    polls: tuple[float, ...]
    cancels: tuple[float, ...]
    """When the provider asked to cancel it: more than once is no harm, since it changes nothing."""
    ending: Ending


class Witness:
    """Reads a sandbox's requests and its journal."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    @property
    def requests(self) -> list[Seen]:
        """All requests, oldest first."""
        journal = self._sandbox.journal
        fetched = {entry.request_id for entry in journal if entry.action == "result" and entry.status_code == 200}
        found = []
        for request in self._sandbox.requests:
            calls = [entry for entry in journal if entry.request_id == request.request_id]
            if request.state != "COMPLETED":
                ending = Ending.ALIVE
            elif request.error_type:
                ending = Ending.CANCELED if request.error_type == "CANCELED" else Ending.FAILED
            else:
                ending = Ending.FETCHED if request.request_id in fetched else Ending.ABANDONED
            found.append(
                Seen(
                    request_id=request.request_id,
                    prompt=request.parameters["prompt"],
                    submitted_at=request.submitted_at,
                    polls=_times(calls, "status"),
                    cancels=_times(calls, "cancel"),
                    ending=ending,
                )
            )
        return found

    @property
    def canceled(self) -> list[Seen]:
        """Those that the provider asked to cancel."""
        return [request for request in self.requests if request.cancels]

    def count(self, ending: Ending) -> int:
        """How many requests came to this end."""
        return sum(request.ending is ending for request in self.requests)

    def answers(self, status_code: int | None) -> int:
        """How many calls were answered so; None: never, or not whole."""
        return sum(entry.status_code == status_code for entry in self._sandbox.journal)

    def story(self) -> str:
        """The calls, for a test that failed."""
        return "\n".join(
            f"{entry.at:.2f} {entry.action} {entry.request_id} {entry.status_code} {entry.user_agent}"
            for entry in self._sandbox.journal
        )


def _times(calls: list[JournalEntry], action: str) -> tuple[float, ...]:
    return tuple(call.at for call in calls if call.action == action and (call.user_agent or "").startswith(PROVIDER))
