"""The example Dags that the demo can run: what it gives them, and what it prints of their results."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from dev.airflow_api import JsonObject
from dev.demo.run import DemoRun
from dev.local_airflow import FIRST_ANSWER

PICTURES = Path(__file__).parents[2] / "tests" / "pictures"
COFFEE = PICTURES / "coffee.png"


class Example:
    """One of the example Dags."""

    dag_id: str
    title: str
    takes_prompt = True
    takes_folder = False
    """Whether IMAGE is a folder, and not a photograph."""

    def conf(self, image: Path | None) -> JsonObject:
        """Return the run's params, but the output path."""
        raise NotImplementedError

    def on_poll(self, run: DemoRun, *, keep: bool) -> None:
        """Do what a person would do while the run goes on. Called again and again."""

    def print_result(self, run: DemoRun) -> None:
        """Print what the run has made."""
        raise NotImplementedError


class Photo(Example):
    """One edit of one photograph."""

    dag_id = "odirouter_edit_photo"
    title = "One edit of one photograph"

    def conf(self, image: Path | None) -> JsonObject:
        if image:
            return {"image": str(image), "mask": None, "prompt": "Make it a watercolour painting"}
        mask = str(PICTURES / "coffee-mask.png")
        return {"image": str(COFFEE), "mask": mask, "prompt": "Turn the coffee into hot chocolate"}

    def print_result(self, run: DemoRun) -> None:
        manifest = run.result("edit")
        print_json("The manifest, which is the task's return value:", manifest)
        print_pictures("Edited pictures:", [manifest])


class Batch(Example):
    """All photographs of a folder, in one task."""

    dag_id = "odirouter_edit_batch"
    title = "A batch: all photographs of a folder, in one task"
    takes_prompt = False
    takes_folder = True

    def conf(self, image: Path | None) -> JsonObject:
        return {"folder": str(image or PICTURES)}

    def print_result(self, run: DemoRun) -> None:
        summary = run.result("edit")
        print_json("The summary, which is the task's return value:", summary)
        print_pictures("Edited pictures, from the batch's manifest:", read_lines(summary["manifest"]))


class Chain(Example):
    """Two edits, one after the other."""

    dag_id = "odirouter_edit_chain"
    title = "A chain: the second edit takes the manifest of the first"
    takes_prompt = False

    def conf(self, image: Path | None) -> JsonObject:
        return {"image": str(image or COFFEE)}

    def print_result(self, run: DemoRun) -> None:
        cut_out, on_beach = run.result("cut_out"), run.result("on_beach")
        print_json("The manifest of the second edit:", on_beach)
        print_pictures("Edited pictures, of the first and of the second edit:", [cut_out, on_beach])


class Review(Example):
    """A person looks at the pictures before they are published."""

    dag_id = "odirouter_review"
    title = "A review: a person looks at the pictures before they are published"
    note = "With more light, please"

    def __init__(self) -> None:
        self._is_over = False
        self._asked_at = math.inf

    def conf(self, image: Path | None) -> JsonObject:
        images = [image] if image else [COFFEE, PICTURES / "chelsea.png"]
        return {"images": [str(path) for path in images], "prompt": "Put it on a plain white background"}

    def on_poll(self, run: DemoRun, *, keep: bool) -> None:
        """Answer as a person who keeps the first picture only; with KEEP=1, leave that to the user."""
        if self._is_over or not run.waits_for_person("review"):
            return
        self._asked_at = min(self._asked_at, time.monotonic())
        if not keep and time.monotonic() < self._asked_at + FIRST_ANSWER:
            return
        self._is_over = True
        if keep:
            run.say(
                f"It waits for you: open {run.airflow.url}/required_actions, look at the pictures, and click Submit."
            )
            run.say(f"The login is {run.airflow.username}, the password {run.airflow.password}.")
            return
        request = run.airflow.api.required_action(self.dag_id, run.run_id, "review")
        switches = [name for name in request["params"] if name != "note"]
        answer: JsonObject = {name: name == switches[0] for name in switches} | {"note": self.note}
        run.airflow.api.answer(self.dag_id, run.run_id, "review", "Submit", answer)
        kept = f"keeps the first of {len(switches)} pictures" if len(switches) > 1 else "keeps the picture"
        run.say(f"The demo answers as a person would: it {kept}, and notes “{self.note}”.")

    def print_result(self, run: DemoRun) -> None:
        review = run.result("review")
        print_json("The review's return value, without the edits:", {**review, "approved": "…", "rejected": "…"})
        print_pictures("Approved, and published:", review["approved"])
        print_pictures("Rejected:", review["rejected"])
        if again := run.result("edit_again"):
            print_pictures("Edited again, with the note as prompt:", read_lines(again["manifest"]))


EXAMPLES: dict[str, Example] = {"photo": Photo(), "batch": Batch(), "chain": Chain(), "review": Review()}
"""By the name in WHAT."""


def read_lines(manifest: str) -> list[JsonObject]:
    """Read the manifest of a batch: a line for each edit."""
    return [json.loads(line) for line in Path(manifest).read_text().splitlines()]


def print_json(heading: str, value: Any) -> None:
    print(f"\n{heading}")
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_pictures(heading: str, manifests: list[JsonObject]) -> None:
    paths = [output["path"] for manifest in manifests for output in manifest.get("outputs", ())]
    print(f"\n{heading}")
    for path in paths or ["none"]:
        print(f"  {path}")
