"""Control from outside: settings, journal and requests over HTTP, outside the base path."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_provider_odirouter.sandbox.wire import Answer, Call, json_answer

if TYPE_CHECKING:
    from airflow_provider_odirouter.sandbox.sandbox import Sandbox

CONTROL_PATH = "/sandbox"


def control(sandbox: Sandbox, call: Call) -> Answer:
    """
    Answer a control call.

    :param sandbox: The sandbox to control.
    :param call: The call.
    """
    match call.method, call.path.removeprefix(CONTROL_PATH):
        case "GET", "/settings":
            return json_answer(sandbox.settings.model_dump(mode="json"))
        case "PATCH", "/settings":
            return _configure(sandbox, call.body)
        case "GET", "/journal":
            return json_answer([{**asdict(entry), "user_agent": entry.user_agent} for entry in sandbox.journal])
        case "DELETE", "/journal":
            sandbox.clear_journal()
            return Answer(204)
        case "GET", "/requests":
            return json_answer([asdict(request) for request in sandbox.requests])
        case "POST", "/reset":
            sandbox.reset()
            return Answer(204)
        case _, "/settings" | "/journal" | "/requests" | "/reset":
            return json_answer({"detail": "Method Not Allowed"}, 405)
    return json_answer({"detail": "Not Found"}, 404)


def _configure(sandbox: Sandbox, body: bytes) -> Answer:
    try:
        changes: Any = json.loads(body)
        settings = sandbox.configure(**changes)
    except ValidationError as error:
        return json_answer({"detail": json.loads(error.json(include_url=False, include_input=False))}, 422)
    except (ValueError, TypeError):
        return json_answer({"detail": "The body is not a JSON object of settings"}, 422)
    return json_answer(settings.model_dump(mode="json"))
