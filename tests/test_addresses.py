"""The addresses of the gallery's pages."""

from __future__ import annotations

from airflow_provider_odirouter.addresses import (
    ALL,
    instance_address,
    link_from_ui,
    task_instance_address,
    with_page,
)


def test_an_address_quotes_names_as_one_part_of_a_path_each() -> None:
    address = instance_address("a/b", "manual__2026-01-01T00:00:00+00:00", "group.{edit}?", -1)
    assert address == "/dags/a%2Fb/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00/tasks/group.%7Bedit%7D%3F/-1"


def test_only_pages_after_the_first_have_a_query() -> None:
    address = instance_address("dag", "run", "task", ALL)
    assert with_page(address, 1) == "/dags/dag/runs/run/tasks/task/all"
    assert with_page(address, 2) == "/dags/dag/runs/run/tasks/task/all?page=2"


def test_an_address_of_the_ui_has_the_map_index_of_a_mapped_task_only() -> None:
    assert task_instance_address("a/b", "r+1", "t", -1) == "/dags/a%2Fb/runs/r%2B1/tasks/t"
    assert task_instance_address("a/b", "r+1", "t", 3) == "/dags/a%2Fb/runs/r%2B1/tasks/t/mapped/3"


def test_a_link_from_the_ui_is_relative_to_the_uis_own_address() -> None:
    assert link_from_ui(instance_address("dag", "run", "task", 0)) == "odirouter/dags/dag/runs/run/tasks/task/0"
