"""A headless Chromium that talks to nobody but the pages it is told to open.

`python -m dev.chromium` installs Debian's package if there is no Chromium on this machine.
"""

from __future__ import annotations

import shutil

from dev import debian

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "apt-get install -qq --no-install-recommends chromium fonts-dejavu-core"
QUIET = (
    # Who may do everything has no sandbox.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Arguments for a machine without a screen, without a network, and perhaps with root as its only user."""


class ChromiumError(RuntimeError):
    """Chromium is missing."""


def program() -> str:
    """The path of Chromium."""
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    raise ChromiumError("Chromium is not installed. On Debian: apt-get install chromium")


def install() -> None:
    """Install Debian's package if there is no Chromium."""
    try:
        program()
    except ChromiumError as error:
        debian.install("Chromium", INSTALL, error)


if __name__ == "__main__":
    install()
