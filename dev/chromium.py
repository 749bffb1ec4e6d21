"""A headless Chromium that contacts no host but those of the pages it opens.

`python -m dev.chromium` installs Debian's package if this machine has no Chromium.
"""

from __future__ import annotations

import shutil

from dev import debian

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "apt-get install -qq --no-install-recommends chromium fonts-dejavu-core"
QUIET = (
    # Chromium cannot use its sandbox as root.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Arguments for a machine without a screen or a network, where root may be the only user."""


class ChromiumError(RuntimeError):
    """Chromium is missing."""


def program() -> str:
    """The path of Chromium.

    :raises ChromiumError: If it is not installed.
    """
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    raise ChromiumError("Chromium is not installed. On Debian: apt-get install chromium")


def install() -> None:
    """Install Debian's package if this machine has no Chromium."""
    try:
        program()
    except ChromiumError as error:
        debian.install("Chromium", INSTALL, error)


if __name__ == "__main__":
    install()
