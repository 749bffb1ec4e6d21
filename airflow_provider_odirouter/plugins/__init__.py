"""What the provider adds to the Airflow UI. Nothing here may do what a task does."""
