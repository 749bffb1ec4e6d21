"""
Remove the notes that finished tasks have left beside their outputs, some days later.

::

    python -m airflow_provider_odirouter.lifecycle.cleanup s3://shop/edited --storage-conn-id aws_default --dry-run

On Airflow before 3.3, each single edit leaves one small file, which a retry may need until Airflow knows that its try
has succeeded. Pictures, manifests and the state of batches are never touched.
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

from airflow_provider_odirouter.compat import find_connections_in_database
from airflow_provider_odirouter.lifecycle.state_files import FORGOTTEN, MAX_BYTES, began_at
from airflow_provider_odirouter.storage.files import files_below, read, remove, remove_empty_folder
from airflow_provider_odirouter.storage.paths import quote_path
from airflow_provider_odirouter.storage.state_folder import FOLDER
from airflow_provider_odirouter.storage.store_errors import describe_error, missing_connection, open_store
from airflow_provider_odirouter.storage.threads import run_parallel, try_in_thread

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

DAY = 24 * 3600.0
MIN_DAYS = 1.0
"""A retry may come hours later."""
TASKS_AT_A_TIME = 8

OLD, YOUNG, ALIVE = "old", "young", "alive"


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    :return: Its exit status: 1, if the store does not allow it.
    """
    options = _parser().parse_args(arguments)
    find_connections_in_database()
    if problem := missing_connection(options.output_path, options.storage_conn_id):
        sys.stderr.write(f"{quote_path(options.output_path)} cannot be cleaned up: {problem}.\n")
        return 1
    before = time.time() - options.older_than_days * DAY
    outcome = try_in_thread(
        lambda: clean_up(
            open_store(options.output_path, options.storage_conn_id),
            before=before,
            also_unfinished=options.all,
            dry_run=options.dry_run,
        )
    )
    if isinstance(outcome, Exception):
        reason = describe_error(outcome, options.output_path, options.storage_conn_id)
        sys.stderr.write(f"{quote_path(options.output_path)} cannot be cleaned up: {reason}.\n")
        return 1
    done = "would be removed" if options.dry_run else "were removed"
    sys.stdout.write(
        f"{outcome[OLD]:,} notes {done}; {outcome[YOUNG]:,} are younger; {outcome[ALIVE]:,} stay because their "
        "request may be alive or may be needed by a new try (--all removes those, too).\n"
    )
    return 0


def clean_up(
    output_path: ObjectStoragePath, *, before: float, also_unfinished: bool = False, dry_run: bool = False
) -> Counter[str]:
    """
    Remove the notes of tries that began before a moment and have succeeded.

    :param before: The moment, in epoch seconds.
    :param also_unfinished: Remove the notes of all other old tries, too.
    :param dry_run: Only count.
    :return: How many notes are old, and so are removed; how many are young; how many are alive.
    """
    notes: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(files_below(output_path / FOLDER)):
        folder, _, name = path.rpartition("/")
        if began_at(name) is not None:  # other files are a batch's, or not ours
            notes[folder].append(name)
    jobs = [
        partial(_tidy, output_path / FOLDER / folder, names, before, also_unfinished=also_unfinished, dry_run=dry_run)
        for folder, names in notes.items()
    ]
    return sum(run_parallel(jobs, workers=TASKS_AT_A_TIME), Counter())


def _tidy(
    folder: ObjectStoragePath, names: Sequence[str], before: float, *, also_unfinished: bool, dry_run: bool
) -> Counter[str]:
    """Remove the old notes of one task instance, of which the newest counts."""
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
        note = json.loads(read(path, MAX_BYTES, track_lineage=False))
    except (FileNotFoundError, ValueError):
        return False
    if not isinstance(note, dict):
        return False
    return note.get("done") is True or note.get("ended") is True or note == FORGOTTEN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_odirouter.lifecycle.cleanup",
        description="Remove the notes that finished single edits have left in OUTPUT_PATH/.odirouter/. "
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
        help="remove the notes of requests, too, that have not ended or cannot be read: a new try of these tasks "
        "pays again",
    )
    return parser


def _days(text: str) -> float:
    days = float(text)
    if not days >= MIN_DAYS:
        raise argparse.ArgumentTypeError(f"at least {MIN_DAYS:g}: a retry may need a note for hours")
    return days


if __name__ == "__main__":
    raise SystemExit(main())
