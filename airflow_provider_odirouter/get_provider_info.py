"""Describes this package to Airflow, which finds it by the entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any

from airflow_provider_odirouter import __version__

INTEGRATION = "OdiRouter"
RAW_FILES = "https://raw.githubusercontent.com/airflow-provider-odirouter/airflow-provider-odirouter"
HOW_TO_GUIDES = ("edit-pictures", "batches", "review", "sensor", "other-models")

MAX_TIMEOUT = 3600
"""Seconds for one call, which a connection can set."""

CONNECTION_TYPE: dict[str, Any] = {
    "connection-type": "odirouter",
    "hook-class-name": "airflow_provider_odirouter.hooks.odirouter.OdiRouterHook",
    "hook-name": "OdiRouter",
    "ui-field-behaviour": {
        "hidden-fields": ["schema", "port", "login"],
        "relabeling": {"host": "Base URL", "password": "API key"},
        "placeholders": {
            "host": "https://odirouter.ai/model (the default)",
            "password": "the key from your OdiRouter account",
        },
    },
    "conn-fields": {
        "timeout": {
            "label": "Timeout",
            "description": "Seconds for one call, at most 3600. Default: 60.",
            # `minimum` is for the form, which knows no limit that is excluded itself.
            "schema": {"type": ["number", "null"], "minimum": 0, "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT},
        },
        "verify": {
            "label": "Verify TLS",
            "description": "true (the default), false, or the path of a CA file.",
            "schema": {"type": ["string", "null"]},
        },
        "allow_private_downloads": {
            "label": "Allow private downloads",
            "description": "Also download pictures from private and loopback addresses. Default: false.",
            "schema": {"type": ["boolean", "null"]},
        },
        "prices": {
            "label": "Prices",
            "description": (
                "Of one output, as JSON, by endpoint and, if they differ, by quality, for estimates and sums: "
                '{"gpt_image_1_edit": {"low": 0.02, "high": 0.19}, "nano_banana_2": 0.04}. Default: none.'
            ),
            "schema": {"type": ["string", "null"]},
        },
    },
}

CONFIG: dict[str, Any] = {
    "odirouter": {
        "description": "How the triggerer waits for OdiRouter's requests.",
        "options": {
            "max_polls_per_second": {
                "description": (
                    "How many polls one triggerer process makes per second at most, all its triggers together.\n"
                    "If they need more, each of them polls less often. Cancels are not counted.\n"
                ),
                "version_added": "0.1.0",
                "type": "float",
                "example": "50",
                "default": "100",
            },
        },
    },
}


def get_provider_info() -> dict[str, Any]:
    """
    Describe the provider to Airflow's ``ProvidersManager``.

    ``package-name`` must be the distribution's canonical name, or Airflow does not find the package. Airflow 3.2 and
    later build the connection form from ``conn-fields`` and ``ui-field-behaviour`` alone; 3.1 asks the hook.
    """
    package = "airflow_provider_odirouter"
    return {
        "package-name": "airflow-provider-odirouter",
        "name": "OdiRouter",
        "description": "Edit images through `OdiRouter's <https://odirouter.ai>`__ queue.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": INTEGRATION,
                "external-doc-url": "https://odirouter.ai",
                # A URL: a path would be one of Airflow's own documentation.
                "logo": f"{RAW_FILES}/v{__version__}/docs/_static/logo.svg",
                "how-to-guide": [f"/docs/how-to/{guide}.md" for guide in HOW_TO_GUIDES],
                "tags": ["ai", "generative-ai", "service"],
            }
        ],
        "hooks": [{"integration-name": INTEGRATION, "python-modules": [f"{package}.hooks.odirouter"]}],
        "triggers": [
            {
                "integration-name": INTEGRATION,
                "python-modules": [f"{package}.triggers.request", f"{package}.triggers.batch"],
            }
        ],
        "operators": [
            {
                "integration-name": INTEGRATION,
                "python-modules": [
                    f"{package}.operators.batch",
                    f"{package}.operators.image_edit",
                    f"{package}.operators.image_edit_batch",
                    f"{package}.operators.queue",
                    f"{package}.operators.review",
                ],
            }
        ],
        "sensors": [{"integration-name": INTEGRATION, "python-modules": [f"{package}.sensors.request"]}],
        "task-decorators": [
            {
                "name": "odirouter_image_edit",
                "class-name": f"{package}.decorators.image_edit.odirouter_image_edit_task",
            },
            {
                "name": "odirouter_image_edit_batch",
                "class-name": f"{package}.decorators.image_edit_batch.odirouter_image_edit_batch_task",
            },
        ],
        "extra-links": [f"{package}.xcoms.OdiRouterRequestLink"],
        "connection-types": [CONNECTION_TYPE],
        "config": CONFIG,
    }
