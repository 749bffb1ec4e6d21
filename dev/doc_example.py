"""The example of the documentation that tests a Dag, as a project of its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "testing.md"
DAGS = "dags"
"""Airflow's Dags folder, below that of the project."""


def write_project(folder: Path, page: Path = PAGE) -> None:
    """
    Write the Dag of a page, and its test.

    The Dag's folder ``/data`` is one below the project's, since this user may have no right to make that.
    """
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    [test] = [block for block in blocks if "def test_" in block]
    [dag] = [block for block in blocks if 'DAG("product_photos")' in block]
    photos = folder / "data" / "photos"
    for path in (photos, folder / DAGS):
        path.mkdir(parents=True)
    shutil.copyfile(ROOT / "tests" / "pictures" / "coffee.png", photos / "cup.png")
    (folder / DAGS / "product_photos.py").write_text(dag.replace('"/data/', f'"{folder}/data/'))
    (folder / "test_product_photos.py").write_text(test)


def environment_of(folder: Path) -> dict[str, str]:
    """Return what the project's tests need in their environment, beside what a process has anyway."""
    return {
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(folder / DAGS),
    }
