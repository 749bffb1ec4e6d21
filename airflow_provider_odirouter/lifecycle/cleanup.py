"""
Remove what finished tasks remember beside their outputs, some days later.

::

    python -m airflow_provider_odirouter.lifecycle.cleanup s3://shop/edited --storage-conn-id aws_default --dry-run

Each single edit of an Airflow before 3.3 leaves one small file, which a retry may need for as long as Airflow has not
heard that its try has ended well. Pictures, manifests and the state of batches are never touched.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_odirouter.images.files import files_below, read, remove, remove_empty_folder
from airflow_provider_odirouter.images.paths import shown
from airflow_provider_odirouter.images.stores import in_words, reached
from airflow_provider_odirouter.images.threads import side_by_side, tried_aside
from airflow_provider_odirouter.lifecycle.state import FOLDER, FORGOTTEN, MAX_BYTES, began_at

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

DAY = 24 * 3600.0
FEWEST_DAYS = 1.0
"""A retry may come hours later."""
TASKS_AT_A_TIME = 8

OLD, YOUNG, ALIVE = "old", "young", "alive"


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    :return: Its exit status: 1, if the store does not let it.
    """
    options = _parser().parse_args(arguments)
    before = time.time() - options.older_than_days * DAY
    outcome = tried_aside(
        lambda: clean_up(
            reached(options.output_path, options.storage_conn_id),
            before=before,
            also_unfinished=options.all,
            dry_run=options.dry_run,
        )
    )
    if isinstance(outcome, Exception):
        reason = in_words(outcome, options.output_path, options.storage_conn_id)
        sys.stderr.write(f"{shown(options.output_path)} cannot be cleaned up: {reason}.\n")
        return 1
    done = "would be removed" if options.dry_run else "were removed"
    sys.stdout.write(
        f"{outcome[OLD]:,} notes {done}; {outcome[YOUNG]:,} are younger, and {outcome[ALIVE]:,} stay because their "
        "request may be alive or may be needed by a new try (--all removes those, too).\n"
    )
    return 0


def clean_up(
    output_path: ObjectStoragePath, *, before: float, also_unfinished: bool = False, dry_run: bool = False
) -> Counter[str]:
    """
    Remove the notes of tries that began before a moment and have ended well.

    :param before: The moment, in epoch seconds.
    :param also_unfinished: Remove those of all other old tries, too.
    :param dry_run: Remove nothing, but count.
    :return: How many notes are old, and so are removed; young; or alive.
    """
    notes: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(files_below(output_path / FOLDER)):
        folder, _, name = path.rpartition("/")
        if began_at(name) is not None:  # what else is there is a batch's, or not ours
            notes[folder].append(name)
    jobs = [
        partial(_tidy, output_path / FOLDER / folder, names, before, also_unfinished=also_unfinished, dry_run=dry_run)
        for folder, names in notes.items()
    ]
    return sum(side_by_side(jobs, workers=TASKS_AT_A_TIME), Counter())


def _tidy(
    folder: ObjectStoragePath, names: Sequence[str], before: float, *, also_unfinished: bool, dry_run: bool
) -> Counter[str]:
    """Remove what is old of the notes of one task instance, of which the newest counts."""
    counts: Counter[str] = Counter()
    for name in names:
        path = folder / name
        if (began_at(name) or 0.0) >= before:
            counts[YOUNG] += 1
        elif name == names[-1] and not also_unfinished and not _has_ended(path):
            counts[ALIVE] += 1
        else:
            counts[OLD] += 1
            if not dry_run:
                remove(path)
    if counts[OLD] and not dry_run:
        remove_empty_folder(folder)
    return counts


def _has_ended(path: ObjectStoragePath) -> bool:
    try:
        note = json.loads(read(path, MAX_BYTES, told=False))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(note, dict) and (note.get("done") is True or note == FORGOTTEN)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_odirouter.lifecycle.cleanup",
        description="Remove what finished single edits remember beside their outputs, in OUTPUT_PATH/.odirouter/. "
        "Pictures, manifests and the state of batches stay.",
    )
    parser.add_argument("output_path", metavar="OUTPUT_PATH", help="of the tasks: a path, or the URL of a store")
    parser.add_argument(
        "--older-than-days", type=_days, default=30.0, metavar="DAYS", help="since the try began (default: 30)"
    )
    parser.add_argument("--storage-conn-id", help="the Airflow connection of the store, if the URL names none")
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, only count")
    parser.add_argument(
        "--all",
        action="store_true",
        help="remove the notes of requests, too, that have not come to their end or cannot be read: a new try of these "
        "tasks pays again",
    )
    return parser


def _days(text: str) -> float:
    days = float(text)
    if not days >= FEWEST_DAYS:
        raise argparse.ArgumentTypeError(f"at least {FEWEST_DAYS:g}: a retry may need a note for hours")
    return days


if __name__ == "__main__":
    raise SystemExit(main())
