"""Developer tools: a real Airflow in a `with` block, and the demo that runs on it."""
