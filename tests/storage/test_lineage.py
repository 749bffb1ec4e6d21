"""Pictures in Airflow's own hook lineage, as a plugin reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.object_store import S3

pytestmark = pytest.mark.every_version

PLUGIN = """
from airflow.plugins_manager import AirflowPlugin

try:
    from airflow.sdk.lineage import HookLineageReader
except ImportError:  # Airflow 3.1
    from airflow.lineage.hook import HookLineageReader

class ReadingPlugin(AirflowPlugin):
    name = "reading"
    hook_lineage_readers = [HookLineageReader]
"""

TASK = """
import json, sys
from airflow_provider_odirouter.compat import get_lineage_collector
from airflow_provider_odirouter.images.inputs import read_inputs
from airflow_provider_odirouter.images.landing import land, probe
from airflow_provider_odirouter.models import OutputFile

inputs, folder, picture = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(picture, "rb") as file:
    data = file.read()

assert not read_inputs(inputs, None).problems
probe(folder)
outputs = [OutputFile(url=str(number)) for number in range(8)]
landed = land(outputs, output_path=folder, name="mine", download=lambda _, into: into.write(data))
collected = get_lineage_collector().collected_assets
print(json.dumps({
    "inputs": [one.asset.uri for one in collected.inputs],
    "outputs": [one.asset.uri for one in collected.outputs],
    "landed": [one.path for one in landed],
}))
"""


@dataclass(frozen=True)
class Seen:
    inputs: list[str]
    outputs: list[str]
    landed: list[str]


@pytest.fixture
def see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reads inputs and lands outputs in another process, whose Airflow has such a plugin."""
    home = tmp_path / "home"
    (home / "plugins").mkdir(parents=True)
    (home / "plugins" / "reading.py").write_text(PLUGIN)
    monkeypatch.setenv("AIRFLOW_HOME", str(home))
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{home}/airflow.db")

    def run(inputs: list[str], folder: str, picture: Path) -> Seen:
        command = [sys.executable, "-c", TASK, json.dumps(inputs), folder, str(picture)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return Seen(**json.loads(done.stdout.splitlines()[-1]))

    return run


def test_local_files_are_reported_under_their_final_names(see: Any, pictures: Path, tmp_path: Path) -> None:
    seen = see(
        [str(pictures / "coffee.png"), f"file://{pictures / 'rocket.jpg'}"],
        str(tmp_path / "out"),
        pictures / "coffee.png",
    )

    assert sorted(seen.inputs) == [f"file://{pictures / 'coffee.png'}", f"file://{pictures / 'rocket.jpg'}"]
    assert sorted(seen.outputs) == [f"file://{path}" for path in seen.landed]


def test_objects_are_reported_under_airflows_names(see: Any, s3: S3, pictures: Path) -> None:
    keys = [f"in-{number}.png" for number in range(4)]
    for key in keys:
        s3.put(key, (pictures / "coffee.png").read_bytes())
    sources = [s3.url(key, conn_id=s3.conn_id) for key in keys]

    seen = see([*sources, "https://example.com/a.png"], s3.url("out", conn_id=s3.conn_id), pictures / "coffee.png")

    assert sorted(seen.inputs) == sources
    assert sorted(seen.outputs) == sorted(seen.landed)
    assert seen.landed == [s3.url(f"out/mine-{number}.png", conn_id=s3.conn_id) for number in range(8)]
