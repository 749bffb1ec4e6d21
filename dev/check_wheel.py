"""Build the wheel, check its contents, and install it into a clean environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from zipfile import ZipFile

from dev import doc_example

ROOT = Path(__file__).parents[1]
PACKAGE = "airflow_provider_odirouter"
UV = Path(sys.executable).with_name("uv")


def run(*command: str | Path, cwd: Path = ROOT, environment: Mapping[str, str] = MappingProxyType({})) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=os.environ | dict(environment), stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def check_contents(wheel: Path) -> None:
    """Exit unless the wheel holds exactly the tracked files of the package and its metadata."""
    tracked = run("git", "ls-files", PACKAGE).split()
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    if names - metadata != set(tracked):
        sys.exit(f"the wheel and the repository differ: {sorted((names - metadata) ^ set(tracked))}")
    if not {"LICENSE", "entry_points.txt", "METADATA"} <= {Path(name).name for name in metadata}:
        sys.exit(f"the wheel's metadata is incomplete: {sorted(metadata)}")
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size:,} bytes")


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
    check_doc_example(python, folder / "project")


def check_doc_example(python: Path, project: Path) -> None:
    """Run the test of the documentation, which finds the pytest plugin by its entry point."""
    doc_example.write_project(project)
    environment = doc_example.environment_of(project)
    run(python, "-m", "airflow", "db", "migrate", cwd=project, environment=environment)
    print(run(python, "-m", "pytest", "--strict-markers", cwd=project, environment=environment).splitlines()[-1])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(UV, "build", "--quiet", "--wheel", "--out-dir", folder)
        [wheel] = folder.glob("*.whl")
        check_contents(wheel)
        check_installed(wheel, folder)


if __name__ == "__main__":
    main()
