"""Kills that no trigger and no worker hears of. Loaded in Airflow's API server alone."""
