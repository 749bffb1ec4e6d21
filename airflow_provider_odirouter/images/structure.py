"""
The structure of a picture's file: where its pixels are, what its header says, and whether its end is there.

Nothing is decoded, and nothing but headers is read into memory. What else a file holds (texts, profiles, previews)
decides about nothing: it may be huge, broken or cut.
"""

from __future__ import annotations

import io
import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import IO, TYPE_CHECKING

from airflow_provider_odirouter.images import formats
from airflow_provider_odirouter.images.formats import Format

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_PARTS = 1_000_000
"""Of one file: a file of empty parts would keep a worker busy for hours."""
MAX_EXIF_BYTES = 2**20
END_BYTES = 2**16
"""At the end of a JPEG, where its last marker is looked for: some cameras write more behind it."""
BOX_BYTES = 2**20
"""Of an AVIF or HEIC, where its size is looked for."""

PNG_SIGNATURE_BYTES = 8
PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a header that has the picture's size."""
JPEG_NOTES = frozenset({*range(0xE0, 0xF0), 0xFE})
"""Markers of what does not decide about the pixels that a JPEG has: profiles, EXIF data, comments."""
JPEG_COLOURS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
"""Markers of notes that say which colours the pixels mean: how they begin, and how long they are at least."""
WEBP_HEADER_BYTES = 12
WEBP_PIXELS = frozenset({b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF"})
WEBP_PICTURES = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
MAX_TIFF_FIELDS = 1000
MAX_STRIPS = 100_000
TIFF_NUMBERS = {3: "H", 4: "I", 16: "Q"}
"""How the whole numbers of a TIFF are stored, by their type's number."""
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
TIFF_STRIPS = ((273, 279), (324, 325))
"""The fields that have the positions and the lengths of strips, and of tiles."""


class CutError(ValueError):
    """A file ends too early; the text says where."""


@dataclass
class Structure:
    """
    What a walk through a file finds.

    :param spans: Beginning and end of each part that holds pixels.
    :param header: What the pixels need in front of these parts, if the file's own header counts its other parts, too.
    :param exif: The EXIF data, or as much of them as is read; empty: none were found.
    :param bits: Of one sample of a PNG.
    :param colour_type: PNG's number: 0 is grey, 2 is RGB, 3 is a palette, 4 and 6 have an alpha channel.
    :param transparency: The content of a PNG's ``tRNS`` before its pixels; behind them it means nothing.
    :param has_data: Whether a PNG has pixels.
    :param frames: How many frames a PNG says that it has.
    """

    size: tuple[int, int] = (0, 0)
    spans: list[tuple[int, int]] = field(default_factory=list)
    header: bytes = b""
    exif: bytes = b""
    bits: int = 8
    colour_type: int = 0
    transparency: bytes = b""
    has_data: bool = False
    frames: int = 1

    def keep(self, start: int, end: int) -> None:
        """Note a part that holds pixels."""
        if self.spans and self.spans[-1][1] == start:
            start, _ = self.spans.pop()
        self.spans.append((start, end))


class Pixels(io.RawIOBase):
    """
    A file without the parts that hold no pixels; it copies nothing.

    :param parts: A file, and the beginning and end of a part of it, for each part that stays.
    """

    def __init__(self, parts: Sequence[tuple[IO[bytes], int, int]]) -> None:
        self._parts = parts
        # Where each part begins in what stays, and at the end where the last one ends.
        self._begins = [0, *accumulate(end - start for _, start, end in parts)]
        self._position = 0

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position in what stays."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._begins[-1]}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read from one part; the next call reads on in the next part."""
        if self._position >= self._begins[-1]:
            return 0
        index = bisect_right(self._begins, self._position) - 1
        file, start, end = self._parts[index]
        begin, view = start + self._position - self._begins[index], memoryview(buffer)
        data = _read(file, begin, min(len(view), end - begin))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def without_notes(file: IO[bytes], structure: Structure) -> IO[bytes]:
    """Return a file that has only those parts of another one that hold pixels."""
    header: tuple[IO[bytes], int, int] = (io.BytesIO(structure.header), 0, len(structure.header))
    return io.BufferedReader(Pixels([header, *((file, start, end) for start, end in structure.spans)]), 2**16)


def walk(file: IO[bytes], format_: Format) -> Structure:
    """
    Walk through a file; of a format whose structure is not known here, it holds pixels everywhere.

    :raises CutError: If the end of its pixels is missing.
    """
    match format_:
        case formats.PNG:
            return walk_png(file)
        case formats.JPEG:
            return walk_jpeg(file)
        case formats.WEBP:
            return walk_webp(file)
    return Structure(spans=[(0, _size(file))])


def walk_png(file: IO[bytes]) -> Structure:
    """
    Walk through a PNG.

    :raises CutError: If its end is missing.
    """
    found, size, position = Structure(), _size(file), PNG_SIGNATURE_BYTES
    found.keep(0, position)
    for _ in range(MAX_PARTS):
        header = _read(file, position, 8)
        if len(header) < 8:
            raise CutError("the end of the PNG is missing")
        length, kind, end = int.from_bytes(header[:4]), header[4:], position + 12 + int.from_bytes(header[:4])
        if end > size:
            raise CutError(f"the file ends in the middle of its part {kind.decode('ascii', 'replace')!r}")
        if kind in PNG_PIXELS:
            found.keep(position, end)
        if kind == b"eXIf":
            found.exif = _read(file, position + 8, min(length, MAX_EXIF_BYTES))
        _note_chunk(found, kind, _read(file, position + 8, length) if _is_noted(kind, length) else b"")
        if kind == b"IEND":
            return found
        position = end
    raise CutError(f"it has more than {MAX_PARTS:,} parts")


def _is_noted(kind: bytes, length: int) -> bool:
    limits = {b"IHDR": 13, b"tRNS": 256, b"acTL": 8}
    return length <= limits.get(kind, -1)


def _note_chunk(found: Structure, kind: bytes, content: bytes) -> None:
    match kind:
        case b"IHDR" if len(content) == 13:
            width, height, found.bits, found.colour_type = struct.unpack(">IIBB", content[:10])
            found.size = width, height
        case b"tRNS" if not found.has_data:
            found.transparency = content
        case b"IDAT":
            found.has_data = True
        case b"acTL" if len(content) == 8:
            found.frames = int.from_bytes(content[:4])


def walk_jpeg(file: IO[bytes]) -> Structure:
    """Walk through a JPEG, as far as its first scan; what the walk does not understand counts as pixels."""
    found, size, position = Structure(), _size(file), 2
    found.keep(0, position)
    for _ in range(MAX_PARTS):
        header = _read(file, position, 4)
        marker, length = header[1:2], int.from_bytes(header[2:])
        if header[:2] == b"\xff\xff":  # Padding.
            found.keep(position, position + 1)
            position += 1
            continue
        end = position + 2 + length
        if len(header) < 4 or header[0] != 0xFF or marker[0] < 0xC0 or marker == b"\xda" or end > size:
            break
        if marker[0] not in JPEG_NOTES or _means_colours(file, position, marker[0], length):
            found.keep(position, end)
        if marker[0] in JPEG_FRAMES and length >= 7:
            height, width = struct.unpack(">HH", _read(file, position + 5, 4))
            found.size = width, height
        if (
            marker == b"\xe1"
            and not found.exif
            and (content := _read(file, position + 4, length - 2))[:6] == b"Exif\0\0"
        ):
            found.exif = content
        position = end
    found.keep(position, size)
    return found


def _means_colours(file: IO[bytes], position: int, marker: int, length: int) -> bool:
    beginning, min_bytes = JPEG_COLOURS.get(marker, (b"", 0))
    return bool(beginning) and length - 2 >= min_bytes and _read(file, position + 4, len(beginning)) == beginning


def walk_webp(file: IO[bytes]) -> Structure:
    """
    Walk through a WebP. Behind its pixels, a part may be cut, or have a wrong length.

    :raises CutError: If the end of its pixels is missing.
    """
    found, size, position = Structure(), _size(file), WEBP_HEADER_BYTES
    kinds: set[bytes] = set()
    for _ in range(MAX_PARTS):
        header = _read(file, position, 8)
        if len(header) < 8:
            break
        kind, length = header[:4], int.from_bytes(header[4:], "little")
        end = position + 8 + length + length % 2
        if kind == b"EXIF":
            found.exif = _read(file, position + 8, min(length, MAX_EXIF_BYTES))
        if end > size:
            if kind in WEBP_PIXELS or not kinds & WEBP_PICTURES:
                raise CutError(f"the file ends in the middle of its part {kind.decode('ascii', 'replace')!r}")
            break
        if kind in WEBP_PIXELS:
            found.keep(position, end)
            kinds.add(kind)
        position = end
    if not kinds & WEBP_PICTURES:
        raise CutError("its pixels are missing")
    if b"ANMF" in kinds and size < 8 + int.from_bytes(_read(file, 4, 4), "little"):
        raise CutError("its last pictures are missing")
    found.header = b"RIFF" + struct.pack("<I", 4 + sum(end - start for start, end in found.spans)) + b"WEBP"
    return found


def size_of(file: IO[bytes], format_: Format) -> tuple[int, int] | None:
    """Return width and height as the header of a file has them; ``None``: they are not known."""
    read_size = SIZES.get(format_)
    width, height = read_size(file) if read_size else (0, 0)
    return (width, height) if min(width, height) > 0 else None


def check_end(file: IO[bytes], format_: Format) -> None:
    """
    Check that the end of a picture is there, where its format says it must be.

    :raises CutError: If it is not.
    """
    size = _size(file)
    match format_:
        case formats.PNG | formats.WEBP:
            walk(file, format_)
            is_whole = True
        case formats.JPEG:
            is_whole = b"\xff\xd9" in _read(file, max(0, size - END_BYTES), END_BYTES)
        case formats.GIF:
            is_whole = _read(file, max(0, size - END_BYTES), END_BYTES).rstrip(b"\0").endswith(b";")
        case formats.BMP:
            is_whole = size >= int.from_bytes(_read(file, 2, 4), "little")
        case formats.TIFF:
            is_whole = _has_all_strips(file, size)
        case formats.AVIF | formats.HEIC:
            is_whole = _has_all_boxes(file, size)
        case formats.SVG:
            is_whole = _ends_as_svg(file, size)
        case _:
            is_whole = True
    if not is_whole:
        raise CutError(f"the end of the {format_.name} is missing")


def _size(file: IO[bytes]) -> int:
    return file.seek(0, io.SEEK_END)


def _read(file: IO[bytes], position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def _numbers(form: str, position: int) -> Callable[[IO[bytes]], tuple[int, ...]]:
    """Return a reader of whole numbers of a header; those behind the end of the file are 0."""
    length = struct.calcsize(form)
    return lambda file: struct.unpack(form, _read(file, position, length).ljust(length, b"\0"))


def _size_of_webp(file: IO[bytes]) -> tuple[int, int]:
    header = _read(file, 12, 18).ljust(18, b"\0")
    match header[:4]:
        case b"VP8X":
            return int.from_bytes(header[12:15], "little") + 1, int.from_bytes(header[15:18], "little") + 1
        case b"VP8L":
            bits = int.from_bytes(header[9:13], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", header[14:18])
    return width & 0x3FFF, height & 0x3FFF


def _size_of_bmp(file: IO[bytes]) -> tuple[int, int]:
    is_old = _read(file, 14, 1) == b"\x0c"  # OS/2's.
    width, height = _numbers("<HH" if is_old else "<ii", 18)(file)
    return abs(width), abs(height)  # A negative height: the first row is the top.


def _size_of_pcx(file: IO[bytes]) -> tuple[int, int]:
    left, top, right, bottom = _numbers("<4H", 4)(file)
    return right - left + 1, bottom - top + 1


def _tiff_fields(file: IO[bytes]) -> dict[int, list[int]]:
    """Return the fields of a TIFF's first picture that are whole numbers."""
    order: str = "<" if _read(file, 0, 2) == b"II" else ">"
    is_big = b"+" in _read(file, 2, 2)
    number, counter, entry = ("Q", "Q", "HHQ8s") if is_big else ("I", "H", "HHI4s")
    entry_bytes = struct.calcsize(f"{order}{entry}")
    start = _unpack(f"{order}{number}", _read(file, 8 if is_big else 4, 8))
    count = _unpack(f"{order}{counter}", _read(file, start, 8))
    fields = {}
    content = _read(file, start + struct.calcsize(f"{order}{counter}"), min(count, MAX_TIFF_FIELDS) * entry_bytes)
    for position in range(0, len(content) - entry_bytes + 1, entry_bytes):
        tag, kind, length, value = struct.unpack_from(f"{order}{entry}", content, position)
        if letter := TIFF_NUMBERS.get(kind):
            form = f"{order}{min(length, MAX_STRIPS)}{letter}"
            if (wanted := struct.calcsize(form)) > len(value):
                value = _read(file, _unpack(f"{order}{number}", value), wanted)
            fields[tag] = list(struct.unpack(form, value[:wanted])) if len(value) >= wanted else []
    return fields


def _unpack(form: str, data: bytes) -> int:
    value: int = struct.unpack(form, data[: struct.calcsize(form)].ljust(struct.calcsize(form), b"\0"))[0]
    return value


def _size_of_tiff(file: IO[bytes]) -> tuple[int, int]:
    fields = _tiff_fields(file)
    width, height = (fields.get(tag) or [0] for tag in (TIFF_WIDTH, TIFF_HEIGHT))
    return width[0], height[0]


def _has_all_strips(file: IO[bytes], size: int) -> bool:
    fields = _tiff_fields(file)
    ends = [
        position + length
        for positions, lengths in TIFF_STRIPS
        for position, length in zip(fields.get(positions, []), fields.get(lengths, []), strict=False)
    ]
    return TIFF_WIDTH in fields and max(ends, default=0) <= size


def _boxes(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the beginning and end of the outer boxes of a file."""
    position, size = 0, _size(file)
    for _ in range(MAX_PARTS):
        header = _read(file, position, 16)
        if len(header) < 8:
            return
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:16])
        end = position + max(length, 8) if length else size
        yield position, end
        position = end


def _has_all_boxes(file: IO[bytes], size: int) -> bool:
    return max(end for _, end in _boxes(file)) <= size


def _size_in_boxes(file: IO[bytes]) -> tuple[int, int]:
    """Return the largest size that a box ``ispe`` has: a picture of tiles has one for the tiles, too."""
    data = _read(file, 0, BOX_BYTES)
    sizes = [struct.unpack(">II", one) for one in re.findall(rb"\0\0\0\x14ispe\0{4}(.{8})", data, re.DOTALL)]
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))


def _ends_as_svg(file: IO[bytes], size: int) -> bool:
    if re.search(rb"</(\w+:)?svg\s*>", _read(file, max(0, size - END_BYTES), END_BYTES)):
        return True
    return re.search(rb"<(\w+:)?svg\b[^>]*/>", _read(file, 0, formats.HEAD_BYTES)) is not None


def _size_of_svg(file: IO[bytes]) -> tuple[int, int]:
    """Return the size in pixels that an SVG names; without one, it has that of its view box."""
    head = _read(file, 0, formats.HEAD_BYTES)
    element = re.search(r"<(?:\w+:)?svg\b([^>]*)", head.decode(errors="replace"), re.IGNORECASE)
    found = dict(
        re.findall(r"\b(width|height|viewBox)\s*=\s*[\"']\s*([^\"']*?)\s*[\"']", element[1] if element else "")
    )
    numbers = [re.fullmatch(r"(\d{1,9}(?:\.\d*)?)(?:px)?", found.get(name, "")) for name in ("width", "height")]
    if numbers[0] and numbers[1]:
        return round(float(numbers[0][1])), round(float(numbers[1][1]))
    box = re.fullmatch(r"\S+[\s,]+\S+[\s,]+(\d{1,9}(?:\.\d*)?)[\s,]+(\d{1,9}(?:\.\d*)?)", found.get("viewBox", ""))
    return (round(float(box[1])), round(float(box[2]))) if box else (0, 0)


SIZES: dict[Format, Callable[[IO[bytes]], tuple[int, ...]]] = {
    formats.PNG: _numbers(">II", 16),
    formats.JPEG: lambda file: walk_jpeg(file).size,
    formats.WEBP: _size_of_webp,
    formats.GIF: _numbers("<HH", 6),
    formats.BMP: _size_of_bmp,
    formats.TIFF: _size_of_tiff,
    formats.TGA: _numbers("<HH", 12),
    formats.PCX: _size_of_pcx,
    formats.PSD: lambda file: _numbers(">II", 14)(file)[::-1],
    formats.AVIF: _size_in_boxes,
    formats.HEIC: _size_in_boxes,
    formats.SVG: _size_of_svg,
}
"""How width and height are read."""
