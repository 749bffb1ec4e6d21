"""The connection form of Airflow 3.1; newer versions read :mod:`~airflow_provider_odirouter.get_provider_info`."""

from __future__ import annotations

from typing import Any

from airflow_provider_odirouter.get_provider_info import CONNECTION_TYPE


def connection_form_widgets() -> dict[str, Any]:
    """Return the form's extra fields."""
    from wtforms import BooleanField, IntegerField, StringField

    widgets = {"number": IntegerField, "string": StringField, "boolean": BooleanField}
    return {
        name: widgets[definition["schema"]["type"][0]](definition["label"], description=definition["description"])
        for name, definition in CONNECTION_TYPE["conn-fields"].items()
    }


def ui_field_behaviour() -> dict[str, Any]:
    """Return the form's labels."""
    behaviour = CONNECTION_TYPE["ui-field-behaviour"]
    return {name.replace("-", "_"): value for name, value in behaviour.items()}
