"""What a StatsD server on a socket receives of a real run: the documentation's numbers, and no request id."""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_odirouter import metrics
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.metrics import Metrics
from airflow_provider_odirouter.models import Spending
from airflow_provider_odirouter.sandbox import Sandbox
from airflow_provider_odirouter.sensors.request import OdiRouterRequestSensor
from airflow_provider_odirouter.triggers.request import OdiRouterRequestTrigger
from tests.conftest import ConfigureAt
from tests.dags.batches import THREE, batch
from tests.dags.conftest import RunDag, anywhere, edit
from tests.dags.test_cost import price  # noqa: F401 - a fixture

pytestmark = [pytest.mark.every_version, pytest.mark.usefixtures("poll_at_once")]

ENDPOINT = "endpoint=gpt_image_1_edit"


class StatsDServer:
    """Receives metrics by UDP, and adds them up."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._lines: list[str] = []
        self._came = threading.Condition()
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                return
            with self._came:
                self._lines += data.decode().splitlines()
                self._came.notify_all()

    def close(self) -> None:
        self._socket.close()

    def lines(self, sent: str = "end") -> list[str]:
        """All lines so far; a last one of our own says that all others have come."""
        metrics.flush()
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.sendto(sent.encode(), ("127.0.0.1", self.port))
        own.close()
        with self._came:
            assert self._came.wait_for(lambda: sent in self._lines, 10)
            return [line for line in self._lines if ".odirouter." in line]

    def sums(self) -> dict[str, float]:
        """The sum of each counter, by its name with its tags, in the order of the alphabet."""
        sums: defaultdict[str, float] = defaultdict(float)
        for line in self.lines():
            name, value, kind = re.fullmatch(r"airflow\.odirouter\.([^:]+):([^|]+)\|(\w+)", line).groups()  # type: ignore[union-attr]
            if kind == "c":
                name, *tags = name.split(",")
                tags = [tag for tag in tags if not tag.startswith(("dag_id=", "task_id="))]
                sums[",".join([name, *sorted(tags)])] += float(value)
        return {name: round(value, 6) for name, value in sums.items() if not re.search(r"\.\w+\.edit$", name)}

    def names(self) -> Counter[str]:
        """How often each name came, without its tags."""
        return Counter(re.split("[,:]", line)[0].removeprefix("airflow.odirouter.") for line in self.lines())


Setup = Callable[..., StatsDServer]


@pytest.fixture
def backends() -> Iterator[list[Any]]:
    """Airflow's clients of the server; Airflow never closes their sockets."""
    made: list[Any] = []
    yield made
    for backend in made:
        backend.statsd.close()


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch, backends: list[Any]) -> Iterator[Setup]:
    """Sets up Airflow's metrics as a worker does, with tags or without."""
    servers: list[StatsDServer] = []

    def start(*, tags: bool = True, **options: str) -> StatsDServer:
        server = StatsDServer()
        servers.append(server)
        settings = {
            "statsd_on": "True",
            "statsd_host": "127.0.0.1",
            "statsd_port": str(server.port),
            "statsd_influxdb_enabled": str(tags),
            **options,
        }
        for name, value in settings.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name.upper()}", value)
        metrics._has_names_with_ids.cache_clear()
        set_up_stats(monkeypatch, backends)
        return server

    yield start
    for server in servers:
        server.close()
    metrics._has_names_with_ids.cache_clear()


def set_up_stats(monkeypatch: pytest.MonkeyPatch, backends: list[Any], package: str = "airflow.sdk") -> None:
    """Do what Airflow does when a worker (``airflow.sdk``) or a triggerer (``airflow``) begins."""
    try:
        stats: Any = import_module(f"{package}._shared.observability.metrics.stats")
    except ImportError:  # Airflow 3.1
        stats = import_module("airflow.stats").Stats
        make = import_module("airflow.metrics.statsd_logger").get_statsd_logger
        monkeypatch.setattr(type(stats), "factory", staticmethod(kept_in(backends, lambda: make(stats))))
        monkeypatch.setattr(stats, "instance", None)
        return
    stats_utils = import_module(f"{package}.observability.metrics.stats_utils")
    if hasattr(stats, "initialize"):
        monkeypatch.setattr(stats, "_backend", None)
        monkeypatch.setattr(stats, "_factory", kept_in(backends, stats_utils.get_stats_factory()))
    else:  # Airflow 3.2
        factory = kept_in(backends, stats_utils.get_stats_factory(stats.Stats))
        monkeypatch.setattr(stats.Stats, "instance", None)
        monkeypatch.setattr(stats.Stats, "factory", factory)


def kept_in(backends: list[Any], factory: Callable[[], Any]) -> Callable[[], Any]:
    def make() -> Any:
        backends.append(factory())
        return backends[-1]

    return make


@anywhere
def test_a_run_counts_what_it_submits_waits_for_and_lands(
    deferrable: bool,
    run_dag: RunDag,
    price: Any,  # noqa: F811
    statsd: Setup,
    sandbox: Sandbox,
    pictures: Path,
    tmp_path: Path,
) -> None:
    server = statsd()
    price({"gpt_image_1_edit": {"auto": 0.1}})
    sandbox.configure(error_type="INFERENCE_FAILURE", fail_first=1)
    run = run_dag(edit(pictures, n=2, deferrable=deferrable, output_path=str(tmp_path)))
    assert run.state == "success"
    landed = [output["size_bytes"] for output in run.xcom("edit")["outputs"]]
    sums = server.sums()
    assert sums.pop(f"polls,{ENDPOINT}") >= 2
    assert sums == {
        f"submits,{ENDPOINT}": 2,
        f"cost,{ENDPOINT}": 0.4,
        f"ends,ending=failed,{ENDPOINT}": 1,
        f"ends,ending=succeeded,{ENDPOINT}": 1,
        f"outputs,{ENDPOINT}": 2,
        f"output_bytes,{ENDPOINT}": sum(landed),
    }
    assert server.names()["wait_duration"] == 2
    assert server.names()["inference_duration"] >= 1
    # `dag.test()` tells a trigger no task instance, as a triggerer does.
    of_task = [line for line in server.lines() if "," in line and ".polls" not in line]
    assert all("dag_id=edit,task_id=edit" in line for line in of_task)


@anywhere
def test_a_batch_counts_the_same(
    deferrable: bool, run_dag: RunDag, statsd: Setup, sandbox: Sandbox, tmp_path: Path
) -> None:
    server = statsd()
    sandbox.configure(error_type="CONTENT_BLOCKED", fail_first=1)
    run_dag(batch(THREE, tmp_path, deferrable=deferrable))
    sums = server.sums()
    assert sums[f"submits,{ENDPOINT}"] == 3
    assert sums[f"ends,ending=failed,{ENDPOINT}"] == 1
    assert sums[f"ends,ending=succeeded,{ENDPOINT}"] == 2
    assert sums[f"outputs,{ENDPOINT}"] == 2
    assert server.names()["wait_duration"] == 3


@anywhere
def test_a_sensor_counts_the_ends_of_its_waits_and_what_it_lands(
    deferrable: bool, run_dag: RunDag, statsd: Setup, pictures: Path, tmp_path: Path
) -> None:
    server = statsd()
    dag = edit(pictures, wait_for_completion=False)
    submit: Any = dag.get_task("edit")
    with dag:
        OdiRouterRequestSensor(
            task_id="wait",
            request_id=submit.output["request_id"],
            output_path=str(tmp_path),
            poll_interval=0.1,
            deferrable=deferrable,
        )
    run = run_dag(dag)
    assert run.state == "success", run.errors
    sums = server.sums()
    assert (sums[f"ends,ending=succeeded,{ENDPOINT}"], sums[f"outputs,{ENDPOINT}"]) == (1, 1)
    [of_end] = [line for line in server.lines() if ".ends," in line]
    assert "dag_id=edit" in of_end
    assert "task_id=wait" in of_end


def test_the_tasks_own_threads_send_nothing(
    run_dag: RunDag, sandbox: Sandbox, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs must not come between a submit and its note, and a kill is no failure of a metric."""
    threads: set[str] = set()

    class Stats:
        @staticmethod
        def incr(*_: Any, **__: Any) -> None:
            threads.add(threading.current_thread().name)

        timing = incr

    monkeypatch.setattr(metrics, "get_stats", lambda: Stats)
    assert run_dag(edit(pictures, deferrable=False, output_path=str(tmp_path))).state == "success"
    assert run_dag(batch(THREE, tmp_path)).state == "success"
    metrics.flush()
    assert threads == {"odirouter-metrics"}


def test_no_metric_names_a_request(run_dag: RunDag, statsd: Setup, sandbox: Sandbox, tmp_path: Path) -> None:
    server = statsd()
    run_dag(batch(THREE, tmp_path))
    assert server.lines()
    assert not [line for line in server.lines() for request in sandbox.requests if request.request_id in line]


def test_a_failure_that_may_pass_is_counted_by_call(
    run_dag: RunDag, statsd: Setup, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    server = statsd()
    sandbox.configure(server_errors=2, fault_actions={"status"})
    run = run_dag(edit(pictures, output_path=str(tmp_path)))
    assert run.state == "success"
    assert server.sums()[f"transient_failures,action=status,{ENDPOINT},error=ServiceError"] == 2


def test_a_429_is_counted_and_is_no_failure(run_dag: RunDag, statsd: Setup, sandbox: Sandbox, tmp_path: Path) -> None:
    server = statsd()
    sandbox.configure(max_alive=1, run_seconds=0.5)
    run_dag(batch(THREE, tmp_path))
    sums = server.sums()
    assert sums[f"rate_limited,action=submit,{ENDPOINT}"] >= 1
    assert not [name for name in sums if name.startswith("transient_failures")]
    assert sums[f"submits,{ENDPOINT}"] == 3


def test_a_cancel_is_counted_with_its_cause(
    run_dag: RunDag, statsd: Setup, sandbox: Sandbox, configure_at: ConfigureAt, pictures: Path, tmp_path: Path
) -> None:
    server = statsd()
    sandbox.configure(run_seconds=60)
    configure_at("cancel", run_seconds=0)
    run_dag(edit(pictures, timeout=1, output_path=str(tmp_path)))
    assert server.sums()[f"cancels,cause=timeout,{ENDPOINT},outcome=requested"] == 1
    assert server.sums()[f"ends,ending=timed_out,{ENDPOINT}"] == 1


def test_a_lost_submit_is_counted_apart(
    run_dag: RunDag, statsd: Setup, sandbox: Sandbox, pictures: Path, tmp_path: Path
) -> None:
    server = statsd()
    sandbox.configure(server_errors=1, fault_actions={"submit"}, fault_after_effect=True)
    assert run_dag(edit(pictures, output_path=str(tmp_path))).state == "failed"
    assert server.sums() == {
        f"lost_submits,{ENDPOINT}": 1,
        f"transient_failures,action=submit,{ENDPOINT},error=ServiceError": 1,
    }


def test_without_tags_a_second_name_has_the_dag_and_the_task(
    run_dag: RunDag, statsd: Setup, pictures: Path, tmp_path: Path
) -> None:
    server = statsd(tags=False)
    run_dag(edit(pictures, dag_id="shop.edit", output_path=str(tmp_path)))
    names = server.names()
    assert names["submits"] == names["submits.shop__edit.edit"] == 1


def test_the_second_name_is_left_out_where_airflow_leaves_out_its_own(
    run_dag: RunDag, statsd: Setup, pictures: Path, tmp_path: Path
) -> None:
    server = statsd(tags=False, legacy_names_on="False")
    run_dag(edit(pictures, output_path=str(tmp_path)))
    assert server.names()["submits"] == 1
    assert "submits.edit.edit" not in server.names()


def test_airflows_allow_list_counts(run_dag: RunDag, statsd: Setup, pictures: Path, tmp_path: Path) -> None:
    server = statsd(metrics_allow_list="odirouter.submits", legacy_names_on="False")
    run_dag(edit(pictures, output_path=str(tmp_path)))
    assert set(server.names()) == {"submits"}


def test_reviews_are_counted_by_outcome(statsd: Setup) -> None:
    server = statsd()
    of_review = Metrics.of(SimpleNamespace(dag_id="shop", task_id="review"))
    of_review.reviewed("approved", 2, endpoint="gpt_image_1_edit")
    of_review.reviewed("rejected", 0)
    of_review.reviewed("timeout")
    sums = {name: value for name, value in server.sums().items() if not name.endswith(".review")}
    assert sums == {f"reviews,{ENDPOINT},outcome=approved": 2, "reviews,outcome=timeout": 1}


def test_odd_ids_are_no_odd_metrics(statsd: Setup, caplog: pytest.LogCaptureFixture) -> None:
    server = statsd()
    Metrics({"dag_id": "Bestände", "task_id": "a.b"}).submitted("a,b=c|d:1", Spending(1, None))
    assert any(",dag_id=Best_nde,task_id=a.b,endpoint=a_b_c_d_1:1|c" in line for line in server.lines())
    assert "odirouter.submits.Best_nde.a__b:1|c" in server.lines()[-1]
    assert not caplog.records


# --- In the triggerer


def test_a_triggerer_counts_with_its_own_copy_of_airflows_metrics(
    statsd: Setup, backends: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = statsd()
    if module := sys.modules.get("airflow.sdk._shared.observability.metrics.stats"):
        if hasattr(module, "initialize"):
            monkeypatch.setattr(module, "_factory", None)
        else:
            monkeypatch.setattr(module.Stats, "factory", None)
        set_up_stats(monkeypatch, backends, "airflow")
    Metrics().polled("gpt_image_1_edit")
    assert server.sums() == {f"polls,{ENDPOINT}": 1}


def test_a_trigger_counts_for_its_task() -> None:
    waiting = OdiRouterRequestTrigger(odirouter_conn_id="c", endpoint="e", request_id="r", deadline=1.0)
    assert waiting._make_hook().metrics.tags == {}
    waiting.task_instance = SimpleNamespace(dag_id="shop", task_id="edit")  # type: ignore[assignment]
    assert waiting._make_hook().metrics.tags == {"dag_id": "shop", "task_id": "edit"}
    assert waiting._make_hook().with_own_client().metrics.tags == {"dag_id": "shop", "task_id": "edit"}


async def test_on_an_event_loop_a_backend_that_blocks_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    sent_by: list[str] = []

    def hang(*_: Any, **__: Any) -> None:
        sent_by.append(threading.current_thread().name)
        release.wait(30)

    monkeypatch.setattr(metrics, "get_stats", lambda: SimpleNamespace(incr=hang))
    for _ in range(3):
        Metrics().polled("e")
    release.set()
    metrics.flush()
    assert sent_by == ["odirouter-metrics"] * 3


async def test_what_comes_faster_than_it_can_be_sent_is_dropped(
    monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> None:
    sent: list[str] = []

    def hang(name: str, *_: Any, **__: Any) -> None:
        release.wait(30)
        sent.append(name)

    monkeypatch.setattr(metrics, "MAX_QUEUED", 5)
    monkeypatch.setattr(metrics, "get_stats", lambda: SimpleNamespace(incr=hang))
    for _ in range(100):
        Metrics().polled("e")
    release.set()
    metrics.flush()
    assert 5 <= len(sent) <= 6


@pytest.mark.parametrize("where", ["incr", "timing"])
@anywhere
def test_a_backend_that_fails_breaks_no_task(
    where: str,
    deferrable: bool,
    run_dag: RunDag,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no StatsD today")

    monkeypatch.setattr(metrics, "get_stats", lambda: SimpleNamespace(**{where: fail}))
    run = run_dag(edit(pictures, deferrable=deferrable, output_path=str(tmp_path)))
    assert (run.state, run.errors) == ("success", [])


def test_where_airflow_has_set_up_no_metrics_none_are_sent(conn_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "get_stats", lambda: None)
    assert OdiRouterHook(conn_id).test_connection()[0]
