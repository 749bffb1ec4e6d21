"""S3 as moto serves it, in its own process, whose memory is not measured: ``python -m benchmarks.store {}``."""

from __future__ import annotations

import json
import sys

from moto.server import ThreadedMotoServer


def main() -> None:
    """Serve until standard input ends."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(json.dumps("http://{}:{}".format(*server.get_host_and_port())), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
