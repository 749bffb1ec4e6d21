"""A task that writes and pushes what a batch does: its files, its manifest, its XComs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator
from PIL import Image

from airflow_provider_odirouter.batch.items import BatchItems
from airflow_provider_odirouter.batch.state import BatchStore
from airflow_provider_odirouter.compat import AirflowFailException
from airflow_provider_odirouter.images.landing import stable_name
from airflow_provider_odirouter.models import BatchItem, BatchSummary, LandedOutput, Phase, Spending
from airflow_provider_odirouter.plugins.gallery import edits
from airflow_provider_odirouter.xcoms import BATCH_XCOM, FAILURE_XCOM, BatchRecord
from tests.conftest import PICTURES
from tests.dags.conftest import Run

SUBMITTED = datetime(2026, 5, 1, 12, tzinfo=UTC)
COMPLETED = datetime(2026, 5, 1, 12, 3, tzinfo=UTC)
DEFERRED = datetime(2026, 5, 1, 12, 1, tzinfo=UTC)
DEADLINE = datetime(2026, 5, 1, 12, 15, tzinfo=UTC)
IMAGE = str(PICTURES / "coffee.png")
MASK = str(PICTURES / "coffee-mask.png")
REFUSED = "OdiRouter refused the request: it was blocked. Change the prompt or the pictures."


class OdiRouterImageEditBatchOperator(BaseOperator):
    """Stands for a batch that has ended; with ``ends=False`` for one that waits, ``has_state``: with its state."""

    def __init__(
        self,
        *,
        folder: str,
        edits: int = 3,
        ends: bool = True,
        has_state: bool = False,
        failure: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.has_state = has_state
        self.folder = folder
        self.edits = edits
        self.ends = ends
        self.failure = failure

    def execute(self, context: Any) -> dict[str, Any] | None:
        """Write the manifest, push the record, and return the summary."""
        ti = context["ti"]
        mapped = [str(ti.map_index)] if ti.map_index >= 0 else []
        stem = stable_name(ti.dag_id, ti.task_id, ti.run_id, *mapped)
        items = [item(number, stem, Path(self.folder)) for number in range(1, self.edits + 1)]
        record = BatchRecord(endpoint="e", edits=self.edits, submitted_at=SUBMITTED, deadline=DEADLINE)
        if not self.ends:
            counts: dict[str, Any] = {"waiting": self.edits - 2, "landed": 1, "failed": 1}
            if self.has_state:
                BatchStore(self.folder, None, stem, max_tries=0, ti_id="1").begin(
                    BatchItems(map(under_way, items)), None
                )
                counts |= {"output_path": self.folder, "deferred_at": DEFERRED}
            ti.xcom_push(BATCH_XCOM, record.model_copy(update=counts).to_xcom())
            return None
        path = Path(self.folder, f"{stem}.jsonl")
        write(path, [one.to_manifest() for one in items])
        summary = BatchSummary.from_items("gpt_image_1_edit", str(path), items, Spending(self.edits + 1, 0.5))
        final = {"manifest": str(path), "landed": summary.succeeded, "failed": summary.failed}
        ti.xcom_push(BATCH_XCOM, record.model_copy(update=final).to_xcom())
        if self.failure:
            ti.xcom_push(FAILURE_XCOM, self.failure)
            raise AirflowFailException(self.failure["what"])
        return summary.model_dump(mode="json")


def item(number: int, stem: str, folder: Path) -> BatchItem:
    """Edit 1 has a mask and two outputs, every third one from 2 on was refused, the others have one output."""
    name = f"cup-{number}" if number % 2 else f"{stem}-number-{number}"
    edit = {"prompt": f"Colour {number}", "images": [IMAGE], "size": "1024x1024"}
    sha256 = {IMAGE: digest(IMAGE)}
    if number == 1:
        edit["mask"], sha256[MASK] = MASK, digest(MASK)
    known = {"request_id": f"mmsu_{number}", "submitted_at": SUBMITTED, "completed_at": COMPLETED}
    planned = BatchItem(number=number, name=name, edit=edit, sha256=sha256, inference_seconds=8.25, **known)
    if number % 3 == 2:
        why = {"error": REFUSED, "error_type": "CONTENT_BLOCKED", "phase": Phase.FAILED}
        return planned.model_copy(update=why)
    outputs = tuple(land(folder / f"{name}-{index}.png", number) for index in range(2 if number == 1 else 1))
    return planned.model_copy(update={"outputs": outputs, "phase": Phase.LANDED})


def under_way(item: BatchItem) -> BatchItem:
    """From 3 on, the edits have not ended: 3 is awaited, 4 has succeeded, the others are to be submitted."""
    if item.number < 3:
        return item
    phases = {3: Phase.SUBMITTED, 4: Phase.SUCCEEDED}
    unended = {"outputs": (), "error": None, "error_type": None}
    return item.model_copy(update=unended | {"phase": phases.get(item.number, Phase.PLANNED)})


def land(path: Path, shade: int) -> LandedOutput:
    """Write a picture."""
    Image.new("RGB", (96, 64), (shade % 256, shade // 256, 200)).save(path)
    size = path.stat().st_size
    fields = {"content_type": "image/png", "width": 96, "height": 64, "size_bytes": size}
    return LandedOutput(path=str(path), sha256=digest(path), **fields)


def digest(path: str | Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def batch(folder: Path, dag_id: str = "edit", **arguments: Any) -> DAG:
    """A Dag of one batch."""
    with DAG(dag_id) as dag:
        OdiRouterImageEditBatchOperator(task_id="edit", folder=str(folder), **arguments)
    return dag


def manifest_of(run: Run, map_index: int = -1) -> Path:
    """The path of the batch's manifest."""
    return Path(run.xcom("edit", map_index=map_index)["manifest"])


def lines_of(run: Run) -> list[dict[str, Any]]:
    """The lines of its manifest."""
    return [json.loads(line) for line in manifest_of(run).read_text().splitlines()]


def write(path: Path, lines: Sequence[dict[str, Any] | str]) -> None:
    """Write a manifest, and let the gallery read it again."""
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{line}\n" for line in text))
    edits._cache.clear()
