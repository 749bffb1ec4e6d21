"""Installs the Debian packages that the end-to-end tests need."""

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
    """Run a shell script as root.

    :param missing: Printed as the reason to exit, if this user cannot become root or apt-get is missing.
    """
    as_root = _as_root()
    if as_root is None or not shutil.which("apt-get"):
        sys.exit(f"{missing}\n(`make e2e` installs it if run as root, or if sudo needs no password.)")
    print(f"Installing {name} …", flush=True)
    subprocess.run([*as_root, "sh", "-c", PREPARE + script], check=True)


def _as_root() -> list[str] | None:
    """The prefix of a command that runs it as root, None if this user may not."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    allowed = shutil.which("sudo") and subprocess.run([*sudo, "true"], capture_output=True, check=False).returncode == 0
    return sudo if allowed else None
