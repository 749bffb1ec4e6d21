"""What the user of the demo may choose, checked before anything is started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dev.ports import PortBusyError, check_port

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "tests" / "pictures"
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 10 * 1024 * 1024


class WrongOptionError(ValueError):
    """A setting cannot be used; the text says which, and what to do."""


@dataclass(frozen=True)
class Options:
    """`api_key` None means the sandbox, `port` 0 a free one. All paths are absolute."""

    image: Path
    mask: Path | None
    prompt: str
    output: Path
    api_key: str | None
    port: int
    keep: bool

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Options:
        """Read and check the settings, or raise `WrongOptionError`. An empty one counts as not given."""
        given = {name: value.strip() for name, value in environment.items() if value.strip()}
        own = given.get("IMAGE")
        image = _picture(own) if own else PICTURES / "coffee.png"
        prompt = "Make it a watercolour painting" if own else "Turn the coffee into hot chocolate"
        return cls(
            image=image,
            mask=None if own else PICTURES / "coffee-mask.png",
            prompt=given.get("PROMPT", prompt),
            output=_folder(given.get("OUTPUT", "demo-output")),
            api_key=given.get("ODIROUTER_API_KEY"),
            port=_port(given["PORT"]) if "PORT" in given else 0,
            keep=given.get("KEEP", "0").lower() not in ("0", "no", "false"),
        )


def _picture(given: str) -> Path:
    path = Path(given).expanduser().absolute()
    if not path.exists():
        raise WrongOptionError(f"IMAGE: there is no file {path}.")
    if not path.is_file():
        raise WrongOptionError(f"IMAGE: {path} is not a file.")
    if not os.access(path, os.R_OK):
        raise WrongOptionError(f"IMAGE: {path} may not be read.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise WrongOptionError(f"IMAGE: {path} has {size / 2**20:.1f} MiB; OdiRouter takes at most 10 MiB.")
    try:
        with Image.open(path, formats=FORMATS) as picture:
            picture.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise WrongOptionError(f"IMAGE: {path} is not a sound PNG, JPEG or WebP picture.") from error
    return path


def _folder(given: str) -> Path:
    path = Path(given).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WrongOptionError(f"OUTPUT: the folder {path} cannot be made: {error.strerror}.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise WrongOptionError(f"OUTPUT: the folder {path} may not be written to.")
    return path


def _port(given: str) -> int:
    if not given.isdecimal() or not 1 <= int(given) <= 65535:
        raise WrongOptionError(f"PORT: {given!r} is not a number from 1 to 65535.")
    try:
        check_port(int(given))
    except PortBusyError as error:
        raise WrongOptionError(str(error)) from error
    return int(given)
