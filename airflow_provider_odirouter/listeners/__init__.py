"""Cancels requests for tasks that a person marked, where no trigger and no worker can. In Airflow's API server only."""
