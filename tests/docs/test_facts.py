"""Figures and lists that the pages about concepts and operations repeat from the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest
from airflow.configuration import conf

from airflow_provider_odirouter import errors, metrics
from airflow_provider_odirouter.batch import checks as batch_checks
from airflow_provider_odirouter.batch import state as batch_state
from airflow_provider_odirouter.batch import submit as batch_submit
from airflow_provider_odirouter.hooks import async_transport, odirouter
from airflow_provider_odirouter.images import inputs, preview
from airflow_provider_odirouter.lifecycle import cancel, finish, ownership, polling, state_files
from airflow_provider_odirouter.listeners import abandoned, delay, marked
from airflow_provider_odirouter.models import edit
from airflow_provider_odirouter.models.api import CancelOutcome
from airflow_provider_odirouter.models.results import Ending
from airflow_provider_odirouter.operators.base import SAFETY_MARGIN
from airflow_provider_odirouter.plugins.gallery import files, threads, views
from airflow_provider_odirouter.protocol import Action, error_mapping
from airflow_provider_odirouter.protocol.retries import MAX_RATE_LIMITED_SECONDS, MAX_REPEAT_SECONDS
from airflow_provider_odirouter.review import input as review_input
from airflow_provider_odirouter.storage.threads import MAX_WORKERS
from airflow_provider_odirouter.triggers import request as request_trigger

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "airflow_provider_odirouter"
MIB = 2**20
MINUTE = 60

NUMBERS = {2: "two", 4: "four", 5: "five", 10: "ten"}


def text_of(page: str) -> str:
    """The text of a page, with one blank between two words."""
    return re.sub(r"\s+", " ", (DOCS / f"{page}.md").read_text())


def in_words(number: float) -> str:
    return NUMBERS[int(number)]


FIGURES = [
    ("concepts/life-of-a-request", f"in a trigger: {polling.FIRST_POLL_DELAY:.0f} s after its start"),
    ("concepts/life-of-a-request", f"{polling.JITTER:.0%} shorter or longer at random".replace("%", " %")),
    ("concepts/life-of-a-request", f"from `poll_interval` up to {polling.MAX_PAUSE:.0f} s"),
    ("concepts/life-of-a-request", f"failed polls in a row that end the wait | {polling.MAX_FAILED_POLLS} |"),
    ("concepts/life-of-a-request", f"the request counts as lost | {polling.MAX_NOT_FOUND};"),
    ("concepts/life-of-a-request", f"{MAX_REPEAT_SECONDS[Action.SUBMIT]:.0f} s; after `429`: 5 minutes |"),
    ("concepts/life-of-a-request", f"{MAX_REPEAT_SECONDS[Action.CANCEL]:.0f} s; after `429`: 200 s |"),
    ("concepts/life-of-a-request", f"counts as {error_mapping.MAX_RETRY_AFTER:.0f} s if it is longer"),
    ("concepts/life-of-a-request", "after 1, 2, 4, 8 and 15 s"),
    ("concepts/life-of-a-request", f"{in_words(MAX_WORKERS)} edits at a time"),
    ("concepts/retries", f"a gap of more than {ownership.FROZEN_SECONDS:.0f} s"),
    ("concepts/kill-and-time", f"the deadline plus {in_words(SAFETY_MARGIN.total_seconds() / MINUTE)} minutes"),
    ("concepts/kill-and-time", f"cancels it, {in_words(marked.DELAY)} seconds later"),
    ("concepts/kill-and-time", f"waits {in_words(ownership.ANSWER_SECONDS_IN_A_KILL)} seconds for the answer"),
    ("concepts/gallery", f"shown or downloaded | {files.MAX_BYTES // MIB} MiB |"),
    ("concepts/gallery", f"| {preview.MAX_DECODE_BYTES // MIB} MiB:"),
    ("concepts/gallery", f"read from one store | {in_words(threads.READERS_PER_STORE)},"),
    ("concepts/gallery", f"waits for a store | {threads.MAX_SECONDS:.0f} |"),
    ("concepts/gallery", f"small pictures in memory | {files.MAX_THUMBNAILS},"),
    ("concepts/gallery", f"pictures on a page of a grid | {views.CARDS_PER_PAGE} |"),
    ("operations/settings", f"| failed polls in a row that end a wait | {polling.MAX_FAILED_POLLS} |"),
    ("operations/settings", f"| edits in a batch | {batch_checks.MAX_EDITS:,} |"),
    ("operations/settings", f"size of one | {edit.MAX_IMAGES}, {inputs.MAX_INPUT_BYTES // MIB} MiB |"),
    ("operations/settings", f"size of an output | {odirouter.MAX_FILE_BYTES // 2**30} GiB |"),
    ("operations/settings", f"time of a download | {odirouter.FILE_TIMEOUT / MINUTE:.0f} minutes |"),
    ("operations/settings", f"page of a review | {review_input.MAX_OUTPUTS} |"),
    ("operations/settings", f"problems that one error lists | {errors.MAX_LINES} |"),
    ("operations/settings", f"for polls, and for cancels | {async_transport.MAX_CONNECTIONS} each |"),
    (
        "operations/settings",
        (
            f"on a worker {cancel.SECONDS_IN_A_KILL:.0f}, in a trigger {request_trigger.CANCEL_TIMEOUT:.0f}, "
            f"in the API server {abandoned.CANCEL_SECONDS:.0f} |"
        ),
    ),
    ("operations/metrics", f"more than {metrics.MAX_QUEUED:,} metrics wait"),
    ("operations/metrics", f"for {in_words(metrics.FLUSH_SECONDS)} seconds at most"),
    ("operations/state-folder", f"| {batch_state.ITEMS_PER_FILE} edits each"),
    ("operations/troubleshooting", f"at most {errors.MAX_LINES}."),
    ("operations/troubleshooting", f"more than {delay.MAX_MARKS:,} marks at once"),
]


@pytest.mark.parametrize(("page", "sentence"), FIGURES)
def test_a_figure_is_the_codes(page: str, sentence: str) -> None:
    assert sentence in text_of(page)


def test_figures_that_the_pages_have_in_words() -> None:
    assert MAX_REPEAT_SECONDS[Action.RESULT] == 5 * MINUTE
    assert MAX_REPEAT_SECONDS[Action.FILE] == MINUTE
    assert {Action.SUBMIT: 5.0 * MINUTE, Action.CANCEL: 200.0} == MAX_RATE_LIMITED_SECONDS
    assert finish.PAUSES_FOR_RESULT == (1.0, 2.0, 4.0, 8.0, 15.0)
    assert batch_submit.MAX_LOST == 3
    assert state_files.MAX_BYTES == 64 * 2**10


def test_the_tree_of_errors_is_that_of_the_module() -> None:
    page = (DOCS / "concepts" / "errors-and-costs.md").read_text()
    [tree] = re.findall(r"```text\n(OdiRouterError\n.*?)```", page, re.DOTALL)
    assert errors.__doc__
    [own] = re.findall(r"::\n\n(    OdiRouterError\n.*?)\n\n", errors.__doc__, re.DOTALL)
    assert tree == inspect.cleandoc(own) + "\n"


# --- Metrics


def calls(name: str) -> set[str]:
    """The first arguments of the calls of a method of the metrics."""
    tree = ast.parse((PACKAGE / "metrics.py").read_text())
    return {
        str(constant.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name
        for constant in ast.walk(node.args[0])
        if isinstance(constant, ast.Constant)
    }


def row_of(metric: str) -> str:
    """The row of a metric in the first table."""
    page = (DOCS / "operations" / "metrics.md").read_text()
    return next(row for row in page.splitlines() if row.startswith(f"| `odirouter.{metric}`"))


def test_the_page_has_all_metrics() -> None:
    table = re.findall(r"^\| (`odirouter\..*?) \|", (DOCS / "operations" / "metrics.md").read_text(), re.MULTILINE)
    named = {name for cell in table for name in re.findall(r"`odirouter\.(\w+)`", cell) if " with " not in cell}
    assert named == calls("_count") | calls("_time")


def test_the_page_has_all_endings() -> None:
    assert {ending.value for ending in Ending} <= set(re.findall(r"`(\w+)`", row_of("ends")))


def test_the_page_has_all_causes_and_outcomes_of_a_cancel() -> None:
    sources = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    causes = set(re.findall(r'cause="(\w+)"', sources))
    causes |= set(re.findall(r'metrics\.cancelled\([^,()]+, "(\w+)"', sources))
    assert {"killed", "timeout", "marked"} <= causes
    assert causes <= set(re.findall(r"`(\w+)`", row_of("cancels")))
    outcomes = {str(outcome).lower() for outcome in CancelOutcome} | {"failed"}
    page = text_of("operations/metrics")
    assert all(f"`{outcome}`" in page for outcome in outcomes)


# --- Airflow, packages, versions


def test_the_defaults_of_airflow_are_those_of_airflow() -> None:
    page = (DOCS / "operations" / "settings.md").read_text()
    rows = re.findall(
        r"^\| `\[(\w+)\] (\w+)` \| `?([^`|]*?)`? \|", page.partition("Defaults of Airflow")[2], re.MULTILINE
    )
    assert len(rows) > 8
    for section, option, default in rows:
        real = conf.configuration_description[section]["options"][option]["default"]
        if default:
            assert str(real).lower() == default.lower(), (section, option)


def test_the_packages_are_those_that_the_distribution_needs() -> None:
    page = (DOCS / "operations" / "upgrades.md").read_text()
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert dict(re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \|$", page, re.MULTILINE)) == dict(
        one.split(">=") for one in needed
    )


def test_the_versions_of_airflow_are_those_that_are_tested() -> None:
    page = (DOCS / "operations" / "versions.md").read_text()
    older = {
        re.findall(r"^apache-airflow==(.+)$", path.read_text(), re.MULTILINE)[0]
        for path in (ROOT / "dev" / "constraints").glob("airflow-*.txt")
    }
    newest = importlib.import_module("airflow").__version__
    assert set(re.findall(r"^\| [\w. ]+ \| (\d+\.\d+\.\d+) \|$", page, re.MULTILINE)) == older | {newest}
