"""The example of a review, as it is."""

from __future__ import annotations

from example_dags.odirouter_review import dag

__all__ = ["dag"]
