"""The example of a review, as it is."""

from __future__ import annotations

import runpy
from pathlib import Path

dag = runpy.run_path(str(Path(__file__).parents[3] / "example_dags" / "odirouter_review.py"))["dag"]
