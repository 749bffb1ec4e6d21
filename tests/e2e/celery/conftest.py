"""What only Celery's tests need: machines that can be told apart, and a bucket instead of a folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.celery_airflow import CeleryAirflow
from dev.local_airflow import LocalAirflow


@pytest.fixture(scope="session")
def airflow(airflow: LocalAirflow) -> CeleryAirflow:
    """Airflow with Celery."""
    assert isinstance(airflow, CeleryAirflow)
    return airflow


@pytest.fixture(scope="module", autouse=True)
def _all_take_tasks(airflow: CeleryAirflow) -> Iterator[None]:
    """Whatever a module does to the workers, the next one finds all at work."""
    yield
    airflow.bring_back()
