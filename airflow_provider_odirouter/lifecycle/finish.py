"""The end of a request that has succeeded: its outputs land, and make the manifest that the task returns."""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_provider_odirouter.compat import conf
from airflow_provider_odirouter.errors import (
    AnswerError,
    FileExpiredError,
    LandingError,
    OdiRouterError,
    PrivateAddressError,
    RejectedError,
    RequestNotFoundError,
    StorageError,
    TransportError,
)
from airflow_provider_odirouter.images import landing
from airflow_provider_odirouter.images.outputs import describe, is_data_url, write_data_url
from airflow_provider_odirouter.lifecycle.polling import SUBMITS_AFTER_CLEAR, SUBMITS_AGAIN, error_from_event
from airflow_provider_odirouter.models import (
    LandedOutput,
    Manifest,
    OutputFile,
    RequestEvent,
    RequestResult,
    Spending,
)
from airflow_provider_odirouter.storage.paths import LOCAL_PROTOCOLS, scheme_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook

log = logging.getLogger(__name__)

PAUSES_FOR_RESULT = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between fetches of a result that is not there yet although its request has succeeded."""
FREE_LANDING_ADVICE = "A retry downloads the outputs again, and pays nothing; so does clearing the task."
LAST_FREE_LANDING_ADVICE = "Clear the task: it then downloads the outputs again, and pays nothing."
"""What to do about outputs that have not landed, where the next try knows their request."""
MAKES_PICTURES = re.compile(r"gpt[_-]?image|nano[_-]?banana|(?<!from)(?<!caption)[_-]image([_-]edit)?$", re.IGNORECASE)
"""
Endpoints whose outputs are pictures, whatever the service calls them; not such as ``image_to_video`` or
``mesh_from_image``.
"""
NOT_KEPT = (
    "The result holds this file itself, not a link to it, and a file is too large for an XCom. Set output_path; an "
    "OdiRouterRequestSensor with an output_path and this request id lands the file."
)
ONE_MACHINE_EXECUTORS = frozenset({"LocalExecutor", "SequentialExecutor"})


def prepare_output_path(output_path: str, storage_conn_id: str | None) -> None:
    """
    Find out whether outputs can be written, before anything is paid; say in the log what a local path needs.

    :raises StorageError: If they cannot.
    """
    landing.probe(output_path, storage_conn_id)
    executor = conf.get("core", "executor", fallback="")
    if scheme_of(output_path) in LOCAL_PROTOCOLS and executor not in ONE_MACHINE_EXECUTORS:
        log.info(
            "The output path %s is local, and Airflow's executor is %s: all workers need the same disk there, since "
            "the next try or a resumed task may run on another worker.",
            output_path,
            executor,
        )


def finish(
    context: Context,
    hook: OdiRouterHook,
    event: RequestEvent,
    *,
    output_path: str | None,
    storage_conn_id: str | None,
    retry: str = SUBMITS_AGAIN,
    after_clear: str = SUBMITS_AFTER_CLEAR,
    landing_is_free: bool = False,
    spent: Spending | None = None,
) -> dict[str, Any]:
    """
    Turn the end of a wait into the manifest that the task returns, wherever the wait was.

    :param output_path: Where the outputs land; ``None``: they stay behind the vendor's links.
    :param storage_conn_id: The connection of the store that they land in.
    :param retry: What a retry does about a request that may still run.
    :param after_clear: What a cleared task does about it.
    :param landing_is_free: Whether another try knows the request, and so lands its outputs without a new one.
    :param spent: By the task instance in all its tries; ``None``: it is not known.
    :raises OdiRouterError: If the request did not succeed, or its outputs cannot be landed.
    """
    if error := error_from_event(event, retry=retry, after_clear=after_clear):
        raise error
    try:
        result = fetch_result(hook, event.endpoint, event.request_id)
        if result.without_url:
            log.warning("%d outputs of request %s have no link and are lost.", result.without_url, event.request_id)
        if output_path is None:
            log.warning("No output_path: the outputs stay behind OdiRouter's links, which expire soon.")
            outputs = tuple(_linked(output, event.endpoint) for output in result.outputs)
            for note in sorted({output.note for output in outputs if output.note}):
                log.warning("Request %s: %s", event.request_id, note)
        else:
            hook.before_call()
            landing.make_output_folder(output_path, storage_conn_id)
            outputs = land_outputs(
                hook,
                event.endpoint,
                event.request_id,
                result,
                name=name_of_files(context),
                output_path=output_path,
                storage_conn_id=storage_conn_id,
            )
            log.info("Landed %s", ", ".join(str(output.path) for output in outputs))
    except (TransportError, AnswerError, LandingError) as error:
        error.request_id = event.request_id
        if error.retry_helps:
            advise_on_landing(error, is_free=landing_is_free)
        raise
    return Manifest(
        request_id=event.request_id,
        endpoint=event.endpoint,
        outputs=outputs,
        submitted_at=event.submitted_at,
        completed_at=event.at,
        inference_seconds=event.inference_seconds,
        metadata=result.metadata,
        **(spent._asdict() if spent else {}),
    ).to_xcom()


def fetch_result(hook: OdiRouterHook, endpoint: str, request_id: str) -> RequestResult:
    """
    Fetch the result of a request that has succeeded; it may lag behind the status.

    :raises LandingError: If it is still missing after all pauses.
    """
    for pause in (*PAUSES_FOR_RESULT, 0.0):
        result = hook.get_result(endpoint, request_id)
        if isinstance(result, RequestResult):
            return result
        time.sleep(pause)
    raise LandingError("The request has succeeded, but its result is not there yet.", request_id=request_id)


def land_outputs(
    hook: OdiRouterHook,
    endpoint: str,
    request_id: str,
    result: RequestResult,
    *,
    name: str,
    output_path: str,
    storage_conn_id: str | None,
    may_replace: Callable[[str], bool] = lambda name: True,  # noqa: ARG005
    workers: int | None = None,
) -> tuple[LandedOutput, ...]:
    """
    Download the outputs of a result, and write them to the user's storage.

    :param name: The beginning of the files' names.
    :param may_replace: Returns of a file's name whether a file that is there may be replaced.
    :param workers: How many outputs at a time.
    """

    def land(result: RequestResult) -> tuple[LandedOutput, ...]:
        return landing.land(
            result.outputs,
            output_path=output_path,
            storage_conn_id=storage_conn_id,
            name=name,
            download=lambda url, into: hook.download(endpoint, request_id, url, into),
            before_write=hook.before_call,
            may_replace=may_replace,
            workers=workers,
            picture_due=makes_pictures(endpoint),
        )

    try:
        landed = land(result)
    except FileExpiredError:
        # Each result has fresh links; once, since a link that expires at once will do so again.
        landed = land(fetch_result(hook, endpoint, request_id))
    hook.metrics.landed(endpoint, [output.size_bytes or 0 for output in landed if output.path])
    return landed


def advise_on_landing(error: OdiRouterError, *, is_free: bool) -> None:
    """
    Say what to do about outputs that have not landed, but may in another try.

    :param is_free: Whether another try knows their request.
    """
    if is_free:
        error.advise(FREE_LANDING_ADVICE, LAST_FREE_LANDING_ADVICE)
    else:
        error.advise(LandingError.advice, LandingError.last_advice)


def makes_pictures(endpoint: str) -> bool:
    """Return whether an endpoint's outputs are pictures, as its name says."""
    return MAKES_PICTURES.search(endpoint) is not None


def forget_unlandable_request(error: OdiRouterError) -> None:
    """
    Count a request as over whose outputs no try could land: a user who clears the task must get new ones.

    For a last try.
    """
    is_final = isinstance(error, LandingError | RequestNotFoundError | RejectedError)
    if is_final and not error.request_over and not isinstance(error, StorageError | PrivateAddressError):
        error.request_over = True
        error.advise(LandingError.last_advice)


def name_of_files(context: Context) -> str:
    """Return the name that a task instance's files begin with, the same in all its tries."""
    ti = context["ti"]
    mapped = [str(ti.map_index)] if ti.map_index is not None and ti.map_index >= 0 else []
    return landing.stable_name(ti.dag_id, ti.task_id, ti.run_id, *mapped)


def _linked(output: OutputFile, endpoint: str) -> LandedOutput:
    """Describe an output that stays behind its link; the content of a ``data:`` URL would not fit into an XCom."""
    if is_data_url(output.url):
        with tempfile.TemporaryFile() as file:
            try:
                write_data_url(output.url, file)
                described = describe(output, file, picture_due=makes_pictures(endpoint))
            except LandingError as error:
                return LandedOutput(note=error.what)
        return described.model_copy(update={"note": NOT_KEPT})
    return LandedOutput(
        url=output.url,
        content_type=output.content_type,
        width=output.width,
        height=output.height,
        size_bytes=output.file_size,
    )
