"""`make demo`: edit a photograph with a real Airflow, and show what happens.

Environment: IMAGE (a photograph of yours), PROMPT, OUTPUT (a folder), KEEP=1 (leave the UI open until Ctrl-C), PORT (of
the UI), ODIROUTER_API_KEY (the real, paid service instead of the sandbox).

Exit codes: 0 done, 1 failed, 2 wrong settings, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

from dev.interrupts import Interrupted, watched


def main() -> int:
    """Run the demo; answer its exit code."""
    try:
        with watched():
            # Here, because it takes a while, in which Ctrl-C is to be as quiet as later.
            from dev.demo_run import run

            return run(os.environ)
    except Interrupted as interrupt:
        print(f"Ended by {interrupt}; nothing is left running.", file=sys.stderr)
        return interrupt.exit_code
    except BrokenPipeError:
        # Nobody reads any more. The interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
