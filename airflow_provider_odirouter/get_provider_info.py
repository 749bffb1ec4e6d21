"""What Airflow learns of this package: found through the entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any

from airflow_provider_odirouter import __version__


def get_provider_info() -> dict[str, Any]:
    """
    Describe the provider to Airflow's ``ProvidersManager``.

    ``package-name`` has to be the distribution's canonical name, or Airflow does not find the package. The connection
    form of Airflow 3.2 and later is made from ``conn-fields`` and ``ui-field-behaviour`` alone; 3.1 asks the hook.
    """
    return {
        "package-name": "airflow-provider-odirouter",
        "name": "OdiRouter",
        "description": "Edit images through `OdiRouter's <https://odirouter.ai>`__ queue.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "OdiRouter",
                "external-doc-url": "https://odirouter.ai",
                "tags": ["service"],
            }
        ],
    }
