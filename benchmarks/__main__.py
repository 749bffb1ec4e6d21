"""``python -m benchmarks [--quick] [name …]``: one after another, each with its table and its JSON."""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from importlib import import_module

NAMES = ("parse", "detection", "landing", "cancellation", "batch", "throughput", "waiting")


def main() -> None:
    """Run the benchmarks that are asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(NAMES)}; all, if none is given")
    parser.add_argument("--quick", action="store_true", help="only check that they run; the figures mean nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in arguments.names or NAMES:
        began, clock, load = datetime.now(UTC), time.monotonic(), os.getloadavg()[0]
        print(f"\n=== {name}", flush=True)
        report = import_module(f"benchmarks.{name}").run(quick=arguments.quick, progress=_print_progress)
        path = report.write(name, quick=arguments.quick, began=began, load=load)
        print(f"\n{report}\n\n{time.monotonic() - clock:.0f} s; every repetition is in {os.path.relpath(path)}")


def _print_progress(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
