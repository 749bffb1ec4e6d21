"""Debian's packages, for what the end-to-end tests need besides Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PREPARE = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
"""


def install(name: str, script: str, missing: Exception) -> None:
    """Run an installation as root; say what is missing if that is not for us to do."""
    as_root = _as_root()
    if as_root is None or not shutil.which("apt-get"):
        sys.exit(f"{missing}\n(`make e2e` does it itself as root, or if sudo needs no password.)")
    print(f"Installing {name} …", flush=True)
    subprocess.run([*as_root, "sh", "-c", PREPARE + script], check=True)


def _as_root() -> list[str] | None:
    """What to put before a command to run it as root, None if we may not."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    may = shutil.which("sudo") and subprocess.run([*sudo, "true"], capture_output=True, check=False).returncode == 0
    return sudo if may else None
