"""What a batch asks about its endpoint: the rules of its parameters, and which of them are files. Light, as is each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from airflow_provider_odirouter.errors import Problem


@dataclass(frozen=True)
class FilesRead:
    """
    The files of an edit.

    :param parameters: The parameters that are files, as they are sent.
    :param problems: Every file that cannot be used; if there are any, none must be sent.
    :param remarks: Warnings for the log.
    :param sha256: Of the files that were read, by their source as it was given.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    remarks: Sequence[str] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)


class EndpointRules(Protocol):
    """The rules of one endpoint."""

    @property
    def endpoint(self) -> str:
        """The endpoint's name."""

    @property
    def list_name(self) -> str:
        """The name of the operator's parameter that is the list."""

    @property
    def parameter_names(self) -> frozenset[str]:
        """All parameters that the endpoint takes; empty: unknown."""

    @property
    def file_fields(self) -> Sequence[str]:
        """The parameters that are files."""

    @property
    def list_columns(self) -> Collection[str]:
        """The columns of a CSV file whose cells may be JSON lists."""

    def check(self, values: Mapping[str, Any], *, unknown: frozenset[str]) -> None:
        """
        Check parameters of which some are still templates.

        :param unknown: The names of those that are templates: they are not checked.
        :raises InvalidParametersError: If the other values break rules; it lists all of them.
        """

    def parse(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return parameters as plain JSON, without those that are unset; files are still paths or URLs.

        :raises InvalidParametersError: If rules are broken; it lists all of them.
        """

    def files_of(self, values: Mapping[str, Any], problems: Sequence[Problem]) -> dict[str, Any]:
        """
        Return the files of parameters that break rules, as far as these rules are about others.

        :param problems: The broken rules.
        """

    def as_edit(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the parameters that an item of the list stands for."""

    def list_problems(self, names: Collection[str]) -> list[Problem]:
        """
        Return what is wrong with the list as a whole.

        :param names: Of all parameters that its edits and their defaults set.
        """

    def read(self, files: Mapping[str, Any], storage_conn_id: str | None) -> FilesRead:
        """
        Read the files of an edit.

        :raises StorageError: If a store cannot be read now, but perhaps later.
        """

    def default_name(self, number: int, parameters: Mapping[str, Any], fingerprint: str) -> str:
        """Return how the names of an edit's files go on after the task instance's, if the edit has no name."""

    def url_fields(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the parameters that may hold URLs with secrets."""
