"""Submitting with a memory: what is noted before and after, against the real sandbox."""

from __future__ import annotations

import json
import socket
from typing import Any, cast

import pytest

from airflow_provider_odirouter.compat import AirflowTaskTimeout
from airflow_provider_odirouter.errors import InvalidParametersError, LostSubmitError, NotSentError, RateLimitedError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.lifecycle import resume
from airflow_provider_odirouter.lifecycle.state import KEY
from airflow_provider_odirouter.sandbox import Sandbox
from tests.conftest import DictStore, Listener
from tests.lifecycle.conftest import ENDPOINT, PARAMETERS, Tries


def test_the_intent_is_noted_before_the_submit_goes_out(
    tries: Tries, store: DictStore, listeners: list[Listener]
) -> None:
    noted: list[Any] = []
    listeners.append(lambda _: noted.append(store.get(KEY)))
    tries.first()
    assert noted == [tries.intent().model_dump(mode="json")]


@pytest.mark.parametrize(
    "settings",
    [{"api_key": "another"}, {"balance": 0}, {"endpoints": ("other",)}, {"redirect_to": "http://127.0.0.1:9/"}],
    ids=str,
)
def test_a_submit_that_was_refused_leaves_no_note(settings: dict[str, Any], tries: Tries, sandbox: Sandbox) -> None:
    sandbox.configure(**settings)
    with pytest.raises(Exception, match=r"submit|endpoint"):
        tries.first()
    assert (tries.request_store.recall(), sandbox.paid) == (None, 0)


def test_a_submit_that_the_rate_limit_stops_for_good_leaves_no_note(tries: Tries, sandbox: Sandbox) -> None:
    sandbox.configure(rate_limit=0.001)
    OdiRouterHook(tries.conn_id).submit(ENDPOINT, PARAMETERS)
    with pytest.raises(RateLimitedError):
        tries.first()
    assert (tries.request_store.recall(), sandbox.paid) == (None, 1)


def test_a_submit_that_found_no_connection_leaves_no_note(tries: Tries, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        document = {
            "conn_type": "odirouter",
            "password": "key",
            "host": f"http://127.0.0.1:{listener.getsockname()[1]}",
        }
    monkeypatch.setenv("AIRFLOW_CONN_CLOSED", json.dumps(document))
    with pytest.raises(NotSentError):
        tries.first("closed")
    assert tries.request_store.recall() is None


@pytest.mark.parametrize("settings", [{"drop_next": 1}, {"server_errors": 1}, {"submit_shape": "no_id"}], ids=str)
def test_a_submit_whose_fate_is_unknown_leaves_its_intent(
    settings: dict[str, Any], tries: Tries, sandbox: Sandbox
) -> None:
    sandbox.configure(**settings)
    with pytest.raises(LostSubmitError):
        tries.first()
    assert tries.request_store.recall() == tries.intent()


def test_a_submit_that_airflow_ends_leaves_its_intent_too(tries: Tries, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object) -> None:
        raise AirflowTaskTimeout

    monkeypatch.setattr(OdiRouterHook, "submit", end)
    with pytest.raises(LostSubmitError, match="execution_timeout ended the submit"):
        tries.first()
    assert tries.request_store.recall() == tries.intent()


@pytest.mark.parametrize("durable", [True, False])
def test_nothing_is_remembered_without_a_store_or_if_set_so(durable: bool, store: DictStore) -> None:
    context = cast("Any", {"task_state_store": store})
    assert resume.open_request_store(context, durable=durable).survives_retry is durable
    assert not resume.open_request_store(cast("Any", {}), durable=durable).survives_retry


def test_parameters_that_are_no_json_cannot_be_intended(tries: Tries) -> None:
    with pytest.raises(InvalidParametersError):
        tries.intent(prompt=object())
