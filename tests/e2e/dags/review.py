"""The example of a review, as it is."""

from __future__ import annotations

import runpy

from tests.e2e.edit_dag import PROJECT

dag = runpy.run_path(str(PROJECT / "example_dags" / "odirouter_review.py"))["dag"]
