"""The format of a file, as its first bytes tell it; neither its name nor what a host calls it counts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import IO, NamedTuple

HEAD_BYTES = 4096
"""As much of a file as is read: a page may begin with long comments."""


class Kind(Enum):
    """What a reader does with a file."""

    PICTURE = "picture"
    VIDEO = "video"
    SOUND = "sound"
    PAGE = "page"
    """A page for browsers: where anything else is due, a proxy or a login answers in place of the file."""
    TEXT = "text"
    """A document for programs, such as a host's error in JSON."""
    OTHER = "other"
    ARCHIVE = "archive"
    """A container that many formats share: what the service calls the file says more."""


class Format(NamedTuple):
    """
    A file format.

    :param name: As messages write it.
    :param content_type: Its media type.
    :param extension: Of a file's name, without the dot.
    """

    name: str
    content_type: str
    extension: str
    kind: Kind

    @property
    def with_article(self) -> str:
        """The name in a sentence."""
        article = "an" if self.name.startswith(("AVI", "HTML", "IC", "M4A", "MP", "O", "SGI", "SVG", "X")) else "a"
        return f"{article} {self.name}"


PNG = Format("PNG", "image/png", "png", Kind.PICTURE)
JPEG = Format("JPEG", "image/jpeg", "jpeg", Kind.PICTURE)
WEBP = Format("WebP", "image/webp", "webp", Kind.PICTURE)
GIF = Format("GIF", "image/gif", "gif", Kind.PICTURE)
AVIF = Format("AVIF", "image/avif", "avif", Kind.PICTURE)
HEIC = Format("HEIC", "image/heic", "heic", Kind.PICTURE)
TIFF = Format("TIFF", "image/tiff", "tiff", Kind.PICTURE)
BMP = Format("BMP", "image/bmp", "bmp", Kind.PICTURE)
SVG = Format("SVG", "image/svg+xml", "svg", Kind.PICTURE)
JPEG_XL = Format("JPEG XL", "image/jxl", "jxl", Kind.PICTURE)
JPEG_2000 = Format("JPEG 2000", "image/jp2", "jp2", Kind.PICTURE)
ICO = Format("ICO", "image/vnd.microsoft.icon", "ico", Kind.PICTURE)
PSD = Format("PSD", "image/vnd.adobe.photoshop", "psd", Kind.PICTURE)
EXR = Format("OpenEXR", "image/x-exr", "exr", Kind.PICTURE)
HDR = Format("Radiance HDR", "image/vnd.radiance", "hdr", Kind.PICTURE)
PNM = Format("PNM", "image/x-portable-anymap", "pnm", Kind.PICTURE)
QOI = Format("QOI", "image/qoi", "qoi", Kind.PICTURE)
DDS = Format("DDS", "image/vnd.ms-dds", "dds", Kind.PICTURE)
PCX = Format("PCX", "image/vnd.zbrush.pcx", "pcx", Kind.PICTURE)
TGA = Format("TGA", "image/x-tga", "tga", Kind.PICTURE)
SGI = Format("SGI", "image/x-sgi", "sgi", Kind.PICTURE)
ICNS = Format("ICNS", "image/x-icns", "icns", Kind.PICTURE)
JPEG_XR = Format("JPEG XR", "image/jxr", "jxr", Kind.PICTURE)

MP4 = Format("MP4", "video/mp4", "mp4", Kind.VIDEO)
QUICKTIME = Format("QuickTime", "video/quicktime", "mov", Kind.VIDEO)
WEBM = Format("WebM", "video/webm", "webm", Kind.VIDEO)
MATROSKA = Format("Matroska", "video/x-matroska", "mkv", Kind.VIDEO)
AVI = Format("AVI", "video/x-msvideo", "avi", Kind.VIDEO)

M4A = Format("M4A", "audio/mp4", "m4a", Kind.SOUND)
WAV = Format("WAV", "audio/wav", "wav", Kind.SOUND)
MP3 = Format("MP3", "audio/mpeg", "mp3", Kind.SOUND)
OGG = Format("Ogg", "audio/ogg", "ogg", Kind.SOUND)
FLAC = Format("FLAC", "audio/flac", "flac", Kind.SOUND)

HTML = Format("HTML page", "text/html", "html", Kind.PAGE)
XML = Format("XML document", "application/xml", "xml", Kind.TEXT)
JSON = Format("JSON document", "application/json", "json", Kind.TEXT)
PDF = Format("PDF", "application/pdf", "pdf", Kind.OTHER)
GLB = Format("glTF model", "model/gltf-binary", "glb", Kind.OTHER)
ZIP = Format("ZIP archive", "application/zip", "zip", Kind.ARCHIVE)
GZIP = Format("gzip file", "application/gzip", "gz", Kind.ARCHIVE)

BEGINNINGS = (
    (re.compile(rb"\x89PNG"), PNG),
    (re.compile(rb"\xff\xd8\xff"), JPEG),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WEBP),
    (re.compile(rb"GIF8[79]a"), GIF),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TIFF),
    # The length of its second header, since texts begin with BM, too.
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), BMP),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n"), JPEG_XL),
    (re.compile(rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51"), JPEG_2000),
    (re.compile(rb"\0\0\x01\0[^\0]\0"), ICO),
    (re.compile(rb"8BPS\0[\x01\x02]"), PSD),
    (re.compile(rb"v/1\x01"), EXR),
    (re.compile(rb"#\?RADIANCE|#\?RGBE"), HDR),
    (re.compile(rb"P[1-7]\s[\s#\d]"), PNM),
    (re.compile(rb"qoif"), QOI),
    (re.compile(rb"DDS \x7c\0\0\0"), DDS),
    (re.compile(rb"\x0a[\0\2-\5]\x01[\1\2\4\x08]"), PCX),
    (re.compile(rb"\x01\xda[\0\1][\1\2]\0[\1-\3]"), SGI),
    (re.compile(rb"icns"), ICNS),
    (re.compile(rb"II\xbc\x01"), JPEG_XR),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), AVI),
    (re.compile(rb"RIFF....WAVE", re.DOTALL), WAV),
    (re.compile(rb"\x1a\x45\xdf\xa3.{0,60}webm", re.DOTALL), WEBM),
    (re.compile(rb"\x1a\x45\xdf\xa3"), MATROSKA),
    (re.compile(rb"ID3[\x02-\x04]|\xff[\xf2\xf3\xfa\xfb]"), MP3),
    (re.compile(rb"OggS"), OGG),
    (re.compile(rb"fLaC"), FLAC),
    (re.compile(rb"%PDF-"), PDF),
    (re.compile(rb"glTF"), GLB),
    (re.compile(rb"PK\x03\x04|PK\x05\x06"), ZIP),
    (re.compile(rb"\x1f\x8b\x08"), GZIP),
    # The last one, since a TGA begins with no mark: palette, kind, origin, a size that is not 0, bits of a pixel.
    (
        re.compile(
            rb".(?:\0[\2\3\x0a\x0b]\0{4}[\0\x0f\x10\x18\x20]|\x01[\1\x09].{4}[\x0f\x10\x18\x20])"
            rb".{4}(?!\0\0)..(?!\0\0)..[\1\x08\x0f\x10\x18\x20][\0-\x3f]",
            re.DOTALL,
        ),
        TGA,
    ),
)
BRANDS = (
    (re.compile(rb"avi[fs]"), AVIF),
    (re.compile(rb"hei[cxms]|hev[cxms]|mif1|msf1"), HEIC),
    (re.compile(rb"qt  "), QUICKTIME),
    (re.compile(rb"M4[AB] "), M4A),
)
"""Of files in boxes, such as MP4."""
COMMENTS = re.compile(r"(?:\s+|<!--.*?-->|<\?.*?\?>)+", re.DOTALL)
ELEMENT = re.compile(r"<!doctype\s+(?P<doctype>\w+)|<(?:\w+:)?(?P<element>\w+)", re.IGNORECASE)
HTML_ELEMENTS = {
    "html",
    "head",
    "body",
    "title",
    "meta",
    "link",
    "script",
    "style",
    "div",
    "p",
    "h1",
    "center",
    "table",
}
JSON_BEGINNING = re.compile(r"\{\s*[\"}]|\[\s*[\[{\"\]\d-]")


def identify(file: IO[bytes]) -> Format | None:
    """Return the format of a file; ``None``: its first bytes are those of no format that is known here."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if known := _match(BEGINNINGS, head):
        return known
    if head[4:8] == b"ftyp":
        return _format_in_boxes(head)
    return _format_of_text(_text(head))


def _format_in_boxes(head: bytes) -> Format:
    """Return the format of a file in boxes: that of its main brand, or of those that it is compatible with."""
    length = int.from_bytes(head[:4])
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, min(length, len(head)), 4))]
    if brands[0] in {b"mif1", b"msf1"}:  # Both AVIF and HEIC.
        brands.sort(key=lambda brand: brand in {b"mif1", b"msf1"})
    for brand in brands if brands[0][:3] in {b"avi", b"hei", b"hev", b"mif", b"msf"} else brands[:1]:
        if known := _match(BRANDS, brand):
            return known
    return MP4


def _match(table: Iterable[tuple[re.Pattern[bytes], Format]], data: bytes) -> Format | None:
    """Return the format of the first pattern of a table that the data begin with."""
    return next((known for pattern, known in table if pattern.match(data)), None)


def _text(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head.decode("utf-16", errors="replace")
    return head.decode("utf-8-sig", errors="replace")


def _format_of_text(text: str) -> Format | None:
    is_xml = text.lstrip().lower().startswith("<?xml")
    rest = text[found.end() :] if (found := COMMENTS.match(text)) else text
    if element := ELEMENT.match(rest):
        name = (element["doctype"] or element["element"]).lower()
        if name == "svg":
            return SVG
        if name in HTML_ELEMENTS:
            return HTML
        return XML if is_xml else None
    if is_xml:
        return XML
    return JSON if JSON_BEGINNING.match(rest) else None
