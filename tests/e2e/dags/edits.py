"""The Dags of the end-to-end tests: the same edit in many settings. A run's conf says against which sandbox."""

from __future__ import annotations

from datetime import timedelta

from tests.e2e.edit_dag import edit_dag

edit = edit_dag("edit")
edit_on_worker = edit_dag("edit_on_worker", deferrable=False)
edit_on_worker_with_retry = edit_dag("edit_on_worker_with_retry", deferrable=False, retries=1)
edit_with_retry = edit_dag("edit_with_retry", retries=1)
edit_with_three_retries = edit_dag("edit_with_three_retries", retries=3)

deadline = edit_dag("deadline", timeout=5)
deadline_with_retry = edit_dag("deadline_with_retry", timeout=5, retries=1)
short_run = edit_dag("short_run", dagrun_timeout=timedelta(seconds=20))

five_edits = edit_dag("five_edits", mapped=5)
fifty_edits = edit_dag("fifty_edits", mapped=50, retries=1)
burst_of_40 = edit_dag("burst_of_40", mapped=40, retries=1)
burst_of_60 = edit_dag("burst_of_60", mapped=60, retries=1)
