"""`make wheel`: build what is published, leave it in `dist/`, and check it as PyPI and a user do.

tests/test_packaging.py says what has to be in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from dev import doc_example

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
PACKAGE = "airflow_provider_odirouter"
UV = Path(sys.executable).with_name("uv")

OFFERED_DAGS = """
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag

bundle = DagBundlesManager().get_bundle("airflow-provider-odirouter-example-dags")
bag = DagBag(dag_folder=bundle.path, bundle_path=bundle.path)
assert not bag.import_errors, bag.import_errors
print("Airflow offers the examples:", *sorted(bag.dags))
"""


def run(*command: str | Path, cwd: Path = ROOT, environment: Mapping[str, str] = MappingProxyType({})) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=os.environ | dict(environment), stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def build() -> Path:
    """Build the sdist, and the wheel from it; return the wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(UV, "build", "--quiet", "--out-dir", DIST)
    [wheel] = DIST.glob("*.whl")
    return wheel


def check_metadata() -> None:
    """Ask PyPI's own client whether it would upload this."""
    files = sorted(path for path in DIST.iterdir() if path.suffix in {".whl", ".gz"})
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    for file in files:
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")


def check_installed(wheel: Path, folder: Path) -> None:
    """Install the wheel with the versions of the lock file, as a user would, and use each part once."""
    programs = folder / "venv" / "bin"
    python = programs / "python"
    constraints = folder / "constraints.txt"
    run(UV, "export", "--frozen", "--quiet", "--no-emit-project", "--no-hashes", "-o", constraints)
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv")
    run(UV, "pip", "install", "--quiet", "--python", python, "--constraints", constraints, wheel, "pytest")
    home = {"AIRFLOW_HOME": str(folder / "home")}
    listed = run(python, "-m", "airflow", "providers", "list", environment=home)
    print(next(line for line in listed.splitlines() if "odirouter" in line))
    print(run(programs / "odirouter-sandbox", "--help").splitlines()[0])
    run(python, "-c", f"import {PACKAGE}.operators.image_edit, {PACKAGE}.triggers.request", environment=home)
    with_examples = home | {"AIRFLOW__CORE__LOAD_EXAMPLES": "True"}
    print(run(python, "-c", OFFERED_DAGS, cwd=folder, environment=with_examples).splitlines()[-1])
    check_doc_example(python, folder / "project")


def check_doc_example(python: Path, project: Path) -> None:
    """Run the test of the documentation, which finds the pytest plugin by its entry point."""
    doc_example.write_project(project)
    environment = doc_example.environment_of(project)
    run(python, "-m", "airflow", "db", "migrate", cwd=project, environment=environment)
    print(run(python, "-m", "pytest", "--strict-markers", cwd=project, environment=environment).splitlines()[-1])


def main() -> None:
    wheel = build()
    check_metadata()
    with tempfile.TemporaryDirectory() as name:
        check_installed(wheel, Path(name))


if __name__ == "__main__":
    main()
