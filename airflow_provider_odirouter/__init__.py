"""Apache Airflow provider for OdiRouter's image editing queue."""

__version__ = "0.1.0"

IMAGE_EDIT_ENDPOINT = "gpt_image_1_edit"
"""The endpoint, OdiRouter's model id, whose parameters this provider names and checks."""
