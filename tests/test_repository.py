"""What the repository says of itself: workflows, forms, hooks and guides name what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_odirouter import __version__
from dev.check_release import find_problem, newest_heading

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
COMMANDS = [
    *WORKFLOWS,
    *(ROOT / name for name in (".ci/run", ".pre-commit-config.yaml", "CONTRIBUTING.md", "Makefile")),
]
"""Files that tell a person or a machine what to run."""


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def steps_of(workflow: Path) -> list[Any]:
    return [step for job in read(workflow)["jobs"].values() for step in job.get("steps", ())]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", COMMANDS, ids=name_of)
def test_a_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`|\x22|run: |entry: |step |# )make ([a-z][a-z0-9]*)", path.read_text(), re.MULTILINE))
    assert path in WORKFLOWS or named
    assert named <= targets


@pytest.mark.parametrize("path", COMMANDS, ids=name_of)
def test_an_airflow_that_is_named_has_its_constraints(path: Path) -> None:
    named = set(re.findall(r"AIRFLOW=([\w.]*\w)", path.read_text()))
    assert [name for name in named if not (ROOT / "dev/constraints" / f"airflow-{name}.txt").is_file()] == []


@pytest.mark.parametrize("path", [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=name_of)
def test_a_file_that_a_guide_names_exists(path: Path) -> None:
    named = re.findall(r"`([\w./-]+(?:\.(?:py|md|txt|toml)|/))`", path.read_text())
    package = ROOT / "airflow_provider_odirouter"
    missing = [name for name in named if not (ROOT / name).exists() and not (package / name).exists()]
    assert [name for name in missing if name != "dev/constraints/airflow-X.txt"] == []


def test_the_workflow_runs_what_every_developer_runs() -> None:
    [ci] = [path for path in WORKFLOWS if path.name == "ci.yml"]
    assert [step["run"] for step in steps_of(ci) if not step.get("run", "git").startswith("git")] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def test_a_release_is_published_only_after_all_checks_and_without_a_token() -> None:
    [release] = [path for path in WORKFLOWS if path.name == "release.yml"]
    jobs = read(release)["jobs"]
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("ci", "build")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in release.read_text()
    assert 'python -m dev.check_release "$GITHUB_REF_NAME"' in [step.get("run") for step in jobs["build"]["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_an_action_is_one_commit(path: Path) -> None:
    used = {step["uses"] for step in steps_of(path) if "uses" in step}
    # PyPI's own asks for this branch.
    used.discard("pypa/gh-action-pypi-publish@release/v1")
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


def test_a_version_of_python_that_is_promised_is_tested() -> None:
    [ci] = [path for path in WORKFLOWS if path.name == "ci.yml"]
    tested = read(ci)["jobs"]["run"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert promised
    assert set(promised) <= set(tested)
    assert project["requires-python"] == f">={tested[0]}"


@pytest.mark.parametrize("path", FORMS, ids=name_of)
def test_an_issue_form_is_whole(path: Path) -> None:
    form = read(path)
    assert form["name"]
    assert form["description"]
    questions = [element for element in form["body"] if element["type"] != "markdown"]
    assert len({question["id"] for question in questions}) == len(questions) >= 3
    assert all(question["attributes"]["label"] for question in questions)


def test_dependabot_looks_after_the_lock_file_and_the_workflows() -> None:
    updates = read(ROOT / ".github" / "dependabot.yml")["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"uv", "github-actions"}


def test_hooks_use_the_versions_of_the_lock_file() -> None:
    repos = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]


def test_the_changelog_has_this_version_on_top() -> None:
    assert newest_heading((ROOT / "CHANGELOG.md").read_text()).startswith(f"## [{__version__}]")


@pytest.mark.parametrize(
    ("tag", "heading", "problem"),
    [
        ("v1.2.3", "## [1.2.3] - 2026-12-01", ""),
        ("v1.2.4", "## [1.2.3] - 2026-12-01", "The tag is v1.2.4, and the version is 1.2.3."),
        ("1.2.3", "## [1.2.3] - 2026-12-01", "The tag is 1.2.3, and the version is 1.2.3."),
        ("v1.2.3", "## [1.2.3] - not released yet", "The newest version in CHANGELOG.md must be “## [1.2.3] - ”"),
        ("v1.2.3", "## [1.2.2] - 2026-12-01", "The newest version in CHANGELOG.md must be “## [1.2.3] - ”"),
    ],
)
def test_only_a_tag_that_version_and_changelog_agree_with_is_released(
    tag: str, heading: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "airflow_provider_odirouter").mkdir()
    (tmp_path / "airflow_provider_odirouter" / "__init__.py").write_text('"""Doc."""\n\n__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## [Unreleased]\n\n{heading}\n\n- One.\n\n## [1.0.0] - …\n")
    found = find_problem(tag, tmp_path)
    assert found.startswith(problem)
    assert bool(found) is bool(problem)
