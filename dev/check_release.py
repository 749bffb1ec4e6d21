"""`python -m dev.check_release v0.1.0`: exit unless the tag, the version and the changelog agree."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def find_problem(tag: str, root: Path = ROOT) -> str:
    """Return why this tag cannot be released, "" if it can. It needs no installed package."""
    code = (root / "airflow_provider_odirouter" / "__init__.py").read_text()
    [version] = re.findall(r'^__version__ = "(.+)"$', code, re.MULTILINE)
    if tag != f"v{version}":
        return f"The tag is {tag}, and the version is {version}."
    heading = newest_heading((root / "CHANGELOG.md").read_text())
    if not re.fullmatch(rf"## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", heading):
        return f"The newest version in CHANGELOG.md must be “## [{version}] - ” and a date, and not “{heading}”."
    return ""


def newest_heading(changelog: str) -> str:
    """Return the heading of the newest version, below *Unreleased*."""
    return next(line for line in changelog.splitlines() if line.startswith("## [") and line != "## [Unreleased]")


if __name__ == "__main__":
    [tag] = sys.argv[1:]
    sys.exit(find_problem(tag) or None)
