"""What the user can choose, checked before anything is started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dev.demo.examples import EXAMPLES, Example
from dev.ports import check_port

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_IMAGE_BYTES = 10 * 1024 * 1024


class OptionError(ValueError):
    """An option cannot be used; the message says which one, and why."""


@dataclass(frozen=True)
class Options:
    """What the user can choose. All paths are absolute.

    :param image: The user's own photograph or folder. None uses those of the example.
    :param prompt: None uses that of the example.
    :param api_key: None uses the sandbox.
    :param port: 0 uses a free one.
    """

    example: Example
    image: Path | None
    prompt: str | None
    output: Path
    api_key: str | None
    port: int
    keep: bool


def read_options(environment: Mapping[str, str]) -> Options:
    """Read the options and check them.

    :raises OptionError: If one of them cannot be used.
    :raises PortBusyError: If the port is taken.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    what = given.get("WHAT", "photo")
    if what not in EXAMPLES:
        raise OptionError(f"WHAT: there is no demo {what!r}; there are {', '.join(EXAMPLES)}.")
    example = EXAMPLES[what]
    if "PROMPT" in given and not example.takes_prompt:
        raise OptionError(f"PROMPT: WHAT={what} takes none, since the Dag {example.dag_id} has its own prompts.")
    read_image = _pictures_folder if example.takes_folder else _image
    return Options(
        example=example,
        image=read_image(given["IMAGE"]) if "IMAGE" in given else None,
        prompt=given.get("PROMPT"),
        output=_output(given.get("OUTPUT", "demo-output")),
        api_key=given.get("ODIROUTER_API_KEY"),
        port=_port(given["PORT"]) if "PORT" in given else 0,
        keep=given.get("KEEP", "0").lower() not in ("0", "no", "false"),
    )


def _image(given: str) -> Path:
    path = Path(given).expanduser().absolute()
    if not path.is_file():
        raise OptionError(f"IMAGE: there is no file {path}.")
    if not os.access(path, os.R_OK):
        raise OptionError(f"IMAGE: no permission to read {path}.")
    if (size := path.stat().st_size) > MAX_IMAGE_BYTES:
        raise OptionError(f"IMAGE: {path} has {size / 2**20:.1f} MiB; OdiRouter takes at most 10 MiB.")
    try:
        with Image.open(path, formats=FORMATS) as picture:
            picture.load()
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise OptionError(f"IMAGE: {path} is not a valid PNG, JPEG or WebP picture.") from error
    return path


def _pictures_folder(given: str) -> Path:
    path = Path(given).expanduser().absolute()
    if not path.is_dir():
        raise OptionError(f"IMAGE: a batch takes a folder of PNG files, and there is no folder {path}.")
    if not any(path.glob("*.png")):
        raise OptionError(f"IMAGE: the folder {path} has no PNG file (*.png).")
    return path


def _output(given: str) -> Path:
    path = Path(given).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"OUTPUT: the folder {path} cannot be created: {error.strerror}.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OptionError(f"OUTPUT: no permission to write to the folder {path}.")
    return path


def _port(given: str) -> int:
    if not given.isdecimal() or not 1 <= int(given) <= 65535:
        raise OptionError(f"PORT: {given!r} is not a number from 1 to 65535.")
    check_port(int(given))
    return int(given)
