"""
A pytest plugin for tests of Dags: a local OdiRouter for each test that wants one.

pytest finds it by the entry point ``pytest11``, in every project of an environment with this package. So it must load
nothing at import but pytest, which is loaded already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox import Sandbox

MARKER = FIXTURE = "odirouter_sandbox"
AT_ONCE = {"queue_seconds": 0, "run_seconds": 0}
"""The settings unless the test has others: a test should not wait for a picture."""


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(odirouter_conn_id='odirouter_default', **settings): run the test with the fixture {FIXTURE}; the "
        "settings are those of the sandbox, such as run_seconds=2",
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give a marked test the fixture, though it may not name it."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    if item.get_closest_marker(MARKER) and FIXTURE not in fixtures:
        fixtures.insert(0, FIXTURE)


@pytest.fixture
def odirouter_sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """
    A local OdiRouter on a socket, and the Airflow connection ``odirouter_default`` to it, for one test.

    Its requests end at once. The marker ``odirouter_sandbox`` has other settings, of a test, a class or a module:
    ``@pytest.mark.odirouter_sandbox(error_type="CONTENT_BLOCKED")``; ``odirouter_conn_id=`` names another connection.
    ``odirouter_sandbox.configure(…)`` changes settings during the test. ``submits`` and ``cancels`` are the calls that
    it got, ``paid`` is the number of submits that cost money, ``alive`` has the ids of the requests that have not
    ended.
    """
    from pydantic import ValidationError

    from airflow_provider_odirouter.sandbox import Sandbox
    from airflow_provider_odirouter.sandbox.settings import describe_problems

    settings: dict[str, Any] = dict(AT_ONCE)
    # The marker of the module first, that of the test last.
    for marker in reversed(list(request.node.iter_markers(MARKER))):
        if marker.args:
            pytest.fail(f"The marker {MARKER} takes settings by name, such as run_seconds=2.", pytrace=False)
        settings |= marker.kwargs
    conn_id: str = settings.pop("odirouter_conn_id", "odirouter_default")
    try:
        sandbox = Sandbox(**settings)
    except ValidationError as error:
        problem = f"The marker {MARKER} has a wrong setting: {describe_problems(error)}."
        raise pytest.fail.Exception(problem, pytrace=False) from None
    with sandbox.serve() as server:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", sandbox.connection(server.base_url))
        # A proxy for the internet cannot reach it.
        exceptions = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, f"{exceptions},127.0.0.1" if exceptions else "127.0.0.1")
        yield sandbox
