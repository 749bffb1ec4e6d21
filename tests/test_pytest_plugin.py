"""The pytest plugin for tests of Dags, as other projects get it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest

from airflow_provider_odirouter import testing
from airflow_provider_odirouter.sandbox.__main__ import main
from dev import doc_example
from tests.build_once import copy_database
from tests.dags.conftest import airflow_db

__all__ = ["airflow_db"]

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
PLUGIN = ("-p", "airflow_provider_odirouter.testing")
HEAVY = {"airflow", "pydantic", "httpx", "aiohttp", "PIL"}
"""What the sandbox or the provider needs, and what takes long to load."""

IMPORTS = """
import os
import pytest
from airflow_provider_odirouter.errors import OdiRouterError
from airflow_provider_odirouter.hooks.odirouter import OdiRouterHook
from airflow_provider_odirouter.sandbox import Sandbox
"""

RunTests = Callable[..., pytest.RunResult]


@pytest.fixture
def run_tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> RunTests:
    """Runs a file of tests with the plugin, and no other one."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(tests: str) -> pytest.RunResult:
        pytester.makepyfile(IMPORTS + dedent(tests))
        return pytester.runpytest_inprocess(*PLUGIN, "--strict-markers")

    return run


def python(*arguments: str, **environment: str) -> str:
    """Run Python in a fresh process that loads no plugin by itself."""
    environment = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class TestWhatItCostsOthers:
    def test_the_import_loads_the_plugin_and_nothing_else(self) -> None:
        script = """if True:
            import sys, pytest
            before = set(sys.modules)
            import airflow_provider_odirouter.testing
            print(*sorted(set(sys.modules) - before))"""
        assert python("-c", script).split() == ["airflow_provider_odirouter", "airflow_provider_odirouter.testing"]

    def test_a_run_of_other_tests_loads_neither_airflow_nor_the_sandbox(self, tmp_path: Path) -> None:
        check = f"assert not {HEAVY | {'airflow_provider_odirouter.sandbox'}!r} & set(sys.modules)"
        (tmp_path / "test_other.py").write_text(f"import sys\n\n\ndef test_other():\n    {check}\n")
        assert "1 passed" in python("-m", "pytest", *PLUGIN, str(tmp_path))


class TestTheFixture:
    def test_it_sets_the_connection_for_the_test_and_ends_with_it(self, run_tests: RunTests) -> None:
        run_tests(
            """
            def submit(hook):
                return hook.submit("nano_banana_2", {"prompt": "A cup"}).request_id

            def test_during(odirouter_sandbox):
                assert isinstance(odirouter_sandbox, Sandbox)
                pytest.hook = OdiRouterHook()
                request_id = submit(pytest.hook)
                assert odirouter_sandbox.paid == 1
                assert odirouter_sandbox.alive == []
                assert [(call.request_id, call.body) for call in odirouter_sandbox.submits] == [
                    (request_id, {"prompt": "A cup"})
                ]

            def test_after():
                assert "AIRFLOW_CONN_ODIROUTER_DEFAULT" not in os.environ
                with pytest.raises(OdiRouterError):
                    submit(pytest.hook)
            """
        ).assert_outcomes(passed=2)

    def test_a_test_can_ask_what_was_cancelled_and_what_still_runs(self, run_tests: RunTests) -> None:
        run_tests(
            """
            @pytest.mark.odirouter_sandbox(run_seconds=60)
            def test_cancels(odirouter_sandbox):
                hook = OdiRouterHook()
                one, other = (hook.submit("nano_banana_2", {"prompt": "A cup"}).request_id for _ in range(2))
                assert odirouter_sandbox.alive == [one, other]
                hook.cancel("nano_banana_2", one)
                assert [call.request_id for call in odirouter_sandbox.cancels] == [one]
                assert odirouter_sandbox.alive == [other]
                odirouter_sandbox.configure(error_type="CONTENT_BLOCKED")
            """
        ).assert_outcomes(passed=1)

    def test_each_test_has_a_sandbox_of_its_own(self, run_tests: RunTests) -> None:
        run_tests(
            """
            @pytest.mark.parametrize("number", [1, 2])
            def test_own(number, odirouter_sandbox):
                OdiRouterHook().submit("nano_banana_2", {"prompt": "A cup"})
                assert odirouter_sandbox.paid == 1
            """
        ).assert_outcomes(passed=2)

    def test_it_is_reached_though_a_proxy_is_set(self, run_tests: RunTests, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("NO_PROXY", "intern.example")
        run_tests(
            """
            def test_no_proxy(odirouter_sandbox):
                assert OdiRouterHook().test_connection()[0]
                assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "intern.example,127.0.0.1"
            """
        ).assert_outcomes(passed=1)
        assert os.environ["NO_PROXY"] == "intern.example"


class TestTheMarker:
    def test_the_marker_that_is_nearest_to_the_test_counts(self, run_tests: RunTests) -> None:
        run_tests(
            """
            pytestmark = pytest.mark.odirouter_sandbox(run_seconds=1, seed=1)

            @pytest.mark.odirouter_sandbox(seed=2, price=2)
            class TestClass:
                @pytest.mark.odirouter_sandbox(price=3)
                def test_settings(self, odirouter_sandbox):
                    settings = odirouter_sandbox.settings
                    assert (settings.run_seconds, settings.seed, settings.price) == (1, 2, 3)
                    assert settings.queue_seconds == 0
            """
        ).assert_outcomes(passed=1)

    def test_a_marked_test_need_not_name_the_fixture(self, run_tests: RunTests) -> None:
        run_tests(
            """
            @pytest.fixture
            def conn():
                return os.environ["AIRFLOW_CONN_ODIROUTER_DEFAULT"]

            @pytest.mark.odirouter_sandbox
            def test_connection(conn):
                assert "http://127.0.0.1:" in conn
            """
        ).assert_outcomes(passed=1)

    def test_it_names_another_connection(self, run_tests: RunTests) -> None:
        run_tests(
            """
            @pytest.mark.odirouter_sandbox(odirouter_conn_id="shop", api_key="k")
            def test_shop():
                assert '"password":"k"' in os.environ["AIRFLOW_CONN_SHOP"]
                assert "AIRFLOW_CONN_ODIROUTER_DEFAULT" not in os.environ
            """
        ).assert_outcomes(passed=1)

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ("run_second=1", "The marker odirouter_sandbox has a wrong setting: run_second: Extra inputs are not per*"),
            ("run_seconds=-1", "*a wrong setting: run_seconds: Input should be greater than or equal to 0*"),
            ("5", "The marker odirouter_sandbox takes settings by name, such as run_seconds=2."),
        ],
    )
    def test_a_wrong_setting_is_an_error_of_the_test_in_one_line(
        self, arguments: str, problem: str, run_tests: RunTests
    ) -> None:
        result = run_tests(
            f"""
            @pytest.mark.odirouter_sandbox({arguments})
            def test_wrong():
                raise AssertionError("it must not run")
            """
        )
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([problem])
        result.stdout.no_fnmatch_line("*Traceback*")


def test_the_entry_points_name_the_plugin_and_the_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [(name, value)] = project["entry-points"]["pytest11"].items()
    # Under any other name, pytest would take `-p` for a second plugin, and fail.
    assert name == testing.__name__
    assert EntryPoint(name, value, "pytest11").load() is testing
    assert EntryPoint("odirouter-sandbox", project["scripts"]["odirouter-sandbox"], "console_scripts").load() is main


@pytest.mark.every_version
def test_the_example_of_the_documentation_passes(airflow_db: None, tmp_path: Path) -> None:
    doc_example.write_project(tmp_path)
    (tmp_path / "home").mkdir()
    copy_database(Path(os.environ["AIRFLOW_HOME"], "airflow.db"), tmp_path / "home" / "airflow.db")
    environment = doc_example.environment_of(tmp_path)
    environment |= {
        "PYTHONPATH": f"{environment['PYTHONPATH']}:{ROOT}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/home/airflow.db",
    }
    assert "2 passed" in python("-m", "pytest", *PLUGIN, "--strict-markers", str(tmp_path), **environment)
