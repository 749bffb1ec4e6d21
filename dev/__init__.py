"""Developer tooling: a real Airflow for a minute, and the demo that runs on it."""
