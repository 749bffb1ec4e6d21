"""What the provider adds to the Airflow UI: it shows, and changes nothing."""
