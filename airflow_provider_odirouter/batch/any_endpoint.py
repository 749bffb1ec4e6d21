"""The rules of an endpoint that we do not know: what JSON can hold, and files that can be read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_odirouter.batch.rules import FilesRead
from airflow_provider_odirouter.errors import InvalidParametersError, Problem
from airflow_provider_odirouter.file_parameters import file_sources, with_files
from airflow_provider_odirouter.json_values import json_object
from airflow_provider_odirouter.parameter_checks import PROMPT, is_unset, unset_problem
from airflow_provider_odirouter.text_paths import relative_remark


@dataclass(frozen=True)
class AnyEndpointRules:
    """
    The rules of a batch for any endpoint, see :class:`~.rules.EndpointRules`.

    :param file_fields: The names of the parameters that are files.
    """

    endpoint: str
    file_fields: Sequence[str]
    list_name: str = "items"
    parameter_names: frozenset[str] = frozenset()

    @property
    def list_columns(self) -> Collection[str]:
        """Any file parameter may be a list of files."""
        return self.file_fields

    def check(self, values: Mapping[str, Any], *, unknown: frozenset[str]) -> None:
        """Check parameters of which some are still templates."""
        self._plain({name: value for name, value in values.items() if name not in unknown})

    def parse(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of an edit, with paths or URLs of files."""
        plain = self._plain(values)
        if not plain:
            raise InvalidParametersError(self.endpoint, [Problem("", "sets no parameter")])
        return plain

    def _plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        known = {name: value for name, value in values.items() if not is_unset(value)}
        problems = []
        if PROMPT in values and PROMPT not in known and (missing := unset_problem(values[PROMPT])):
            problems.append(Problem(PROMPT, missing))
        problems += file_sources(known, self.file_fields)[1]
        plain: dict[str, Any] = {}
        try:
            plain = json_object(self.endpoint, known, name="")
        except InvalidParametersError as error:
            problems += error.problems
        if problems:
            raise InvalidParametersError(self.endpoint, problems)
        return plain

    def files_of(self, values: Mapping[str, Any], problems: Sequence[Problem]) -> dict[str, Any]:
        """Return the files that are not part of a broken rule."""
        broken = {re.split(r"[.\[]", problem.field)[0] for problem in problems}
        usable = [name for name in self.file_fields if name not in broken and not is_unset(values.get(name))]
        return {name: values[name] for name in usable}

    def list_problems(self, names: Collection[str]) -> list[Problem]:
        """Find file parameters that no edit has: a path would be sent, and paid, as a text."""
        unknown = [name for name in self.file_fields if name not in names]
        return [Problem("file_parameters", f"{name!r} is not a parameter of any of the items") for name in unknown]

    def read(self, files: Mapping[str, Any], storage_conn_id: str | None) -> FilesRead:
        """Read the files of an edit."""
        from airflow_provider_odirouter.images.inputs import read_files

        sources, _ = file_sources(files, self.file_fields)
        read = read_files(sources, storage_conn_id=storage_conn_id)
        remarks = [remark for name, source in sources.items() if (remark := relative_remark(name, source))]
        return FilesRead(with_files(files, self.file_fields, read.encoded), read.problems, remarks, read.sha256)

    def default_name(self, number: int, parameters: Mapping[str, Any], fingerprint: str) -> str:  # noqa: ARG002
        """Return the edit's number."""
        return str(number)

    def url_fields(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """Return all parameters: any of them may be a URL, or a text with one."""
        return tuple(parameters)
