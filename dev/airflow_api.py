"""The few calls of Airflow's REST API v2 that the demo and the tests need, the same for 3.1 to 3.3."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast
from urllib.parse import quote

import httpx

JsonObject = dict[str, Any]
PAGE = 100


class AirflowApi:
    """A client that logs in at the first call.

    Every method raises `httpx.HTTPStatusError`, with the body of the answer, if the status is an error.
    """

    def __init__(self, url: str, username: str, password: str) -> None:
        self._credentials = {"username": username, "password": password}
        # Calls to loopback must not go to the developer's proxy.
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def health(self) -> dict[str, str | None]:
        """The status of each component: "healthy", "unhealthy", or None if it has never run."""
        answer = self._client.get("/api/v2/monitor/health", timeout=5).raise_for_status().json()
        return {name: part["status"] for name, part in answer.items()}

    def warm_up(self) -> None:
        """Make the server build the API that tasks use, which it does at the first call and which blocks it for 3 s."""
        self._client.get("/execution/health")

    def count_jobs(self, job_type: str, since: datetime) -> int:
        """Count the running jobs of a type ("SchedulerJob", "TriggererJob", "DagProcessorJob") started since a time.

        `health` shows only one component of each type, and shows a killed one as healthy for half a minute.
        """
        params = {"job_type": job_type, "is_alive": True, "start_date_gte": since.isoformat()}
        return int(self._call("GET", "/jobs", params=params)["total_entries"])

    def dag_ids(self) -> list[str]:
        """The ids of all parsed Dags."""
        return [dag["dag_id"] for dag in self._pages("/dags", "dags")]

    def import_errors(self) -> list[str]:
        """For each file that could not be parsed, its name and the traceback."""
        errors = self._pages("/importErrors", "import_errors")
        return [f"{error['filename']}\n{error['stack_trace']}" for error in errors]

    def unpause(self, dag_id: str) -> None:
        self._call("PATCH", f"/dags/{quote(dag_id)}", json={"is_paused": False})

    def add_connection(self, conn_id: str, conn_type: str, **fields: str) -> None:
        body = {"connection_id": conn_id, "conn_type": conn_type, **fields}
        self._call("POST", "/connections", json=body)

    def delete_connection(self, conn_id: str) -> None:
        self._call("DELETE", f"/connections/{quote(conn_id)}")

    def add_pool(self, name: str, slots: int) -> None:
        """Make a pool whose slots deferred tasks hold, too."""
        self._call("POST", "/pools", json={"name": name, "slots": slots, "include_deferred": True})

    def trigger(self, dag_id: str, conf: JsonObject) -> str:
        """Start a run with these params, and return its id."""
        run = self._call("POST", f"/dags/{quote(dag_id)}/dagRuns", json={"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> JsonObject:
        """The run: `state` and more."""
        return self._call("GET", _run_path(dag_id, run_id))

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run "failed", "success" or "queued", as a user would in the UI."""
        self._call("PATCH", _run_path(dag_id, run_id), json={"state": state})

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run that has ended."""
        self._call("DELETE", _run_path(dag_id, run_id))

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task instance "failed", "success" or "skipped", as a user would in the UI."""
        index = f"/{map_index}" if map_index >= 0 else ""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}{index}"
        self._call("PATCH", path, json={"new_state": state})

    def clear_task(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear a task in any state, as a user would in the UI."""
        body = {"dag_run_id": run_id, "task_ids": [task_id], "only_failed": False, "dry_run": False}
        self._call("POST", f"/dags/{quote(dag_id)}/clearTaskInstances", json=body)

    def task_instances(self, dag_id: str, run_id: str) -> list[JsonObject]:
        """The task instances of a run: `task_id`, `map_index`, `state`, `try_number`, `triggerer_job` and more."""
        return self._pages(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances")

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str, map_index: int) -> Any:
        """The value of an XCom, None if it does not exist."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        try:
            return self._call("GET", path, params={"map_index": map_index})["value"]
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise

    def required_action(self, dag_id: str, run_id: str, task_id: str) -> JsonObject:
        """What a task asks a person: `subject`, `options`, `params` and more."""
        return self._call("GET", f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/-1/hitlDetails")

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, values: JsonObject) -> None:
        """Answer what a task asks, as a person would in the UI."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/-1/hitlDetails"
        self._call("PATCH", path, json={"chosen_options": [option], "params_input": values})

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int) -> list[JsonObject]:
        """The lines that a try logged, also in the triggerer: `event`, and mostly `timestamp` and `level`."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id)}/logs/{try_number}"
        answer = self._call("GET", path, params={"map_index": map_index, "full_content": True})
        return cast("list[JsonObject]", answer["content"])

    def _pages(self, path: str, member: str) -> list[JsonObject]:
        rows: list[JsonObject] = []
        while True:
            answer = self._call("GET", path, params={"limit": PAGE, "offset": len(rows)})
            rows += answer[member]
            if not answer[member] or len(rows) >= answer["total_entries"]:
                return rows

    def _call(
        self, method: str, path: str, *, params: JsonObject | None = None, json: JsonObject | None = None
    ) -> JsonObject:
        if "Authorization" not in self._client.headers:
            answer = _checked(self._client.post("/auth/token", json=self._credentials))
            self._client.headers["Authorization"] = f"Bearer {answer['access_token']}"
        return _checked(self._client.request(method, f"/api/v2{path}", params=params, json=json))


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _checked(response: httpx.Response) -> JsonObject:
    if response.is_error:
        request = response.request
        message = f"{request.method} {request.url}: {response.status_code} {response.text}"
        raise httpx.HTTPStatusError(message, request=request, response=response)
    return cast("JsonObject", response.json() if response.content else {})
