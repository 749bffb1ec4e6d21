"""Apache Airflow provider for OdiRouter's image editing queue."""

__version__ = "0.1.0"
