"""Metadata of one photograph: size, EXIF, time, place, device and pixel statistics. Without Spark."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from PIL import ExifTags, Image

from device.model import transform
from lakevision.ingest import image_statistics, quality

# 2021-07-13T03:04:54 from the first accelerator's capture script (with %3A in most copies), or
# 2026-03-02T081502.123Z from the capture agent.
NAME_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d):?(\d\d):?(\d\d)(\.\d{1,6})?(Z?)")
# Name of a frame from the capture agent: <time>_<boot>_<sequence>[_<label>]; see device/spool/entry.py.
AGENT_NAME = re.compile(NAME_TIME.pattern + r"_[0-9a-f]{8}_\d{6,}(?:_(?P<label>[^_]+))?")
TEXT_LIMIT = 2000  # characters kept of one EXIF value: MakerNotes of some phones have 100 kB
# Plausible years. An earlier year comes from a clock that was never set. Parquet refuses 1899 and pandas cannot hold
# 2263, so a single odd name would stop the whole ingest.
YEARS = range(1980, 2200)
TAG_LIMIT = 500  # tags kept of one photograph; a camera writes 60


@dataclass
class Photo:
    """Columns of the table images for one photograph. Only error is set if the photograph cannot be decoded.

    statistics: see image_statistics.of(); scores: see quality.scores().
    """

    error: str | None = None
    captured_at: datetime | None = None
    captured_from: str | None = None
    device: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    format: str | None = None
    frames: int | None = None
    dpi: float | None = None
    orientation: int | None = None
    make: str | None = None
    model: str | None = None
    exposure_s: float | None = None
    aperture: float | None = None
    iso: int | None = None
    focal_mm: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude_m: float | None = None
    exif: dict[str, str] | None = None
    statistics: dict[str, Any] | None = None
    phash: int | None = None
    scores: dict[str, float] | None = None


def describe(path: str, data: bytes, modified_at: datetime, zone: str = "UTC") -> Photo:
    """A Photo from the bytes of a file. Never raises, whatever the bytes are.

    path: relative to the landing zone; modified_at: aware datetime; zone: the setting ingest.timezone.
    """
    try:
        image = transform.decode(data)
        tags = exif(image)
        taken, source = captured_at(path, tags, modified_at, zone)
        (width, height), mode = image.size, image.mode  # before _frames(): later frames may be smaller
        statistics, phash = image_statistics.of(_rgb(image))
        latitude, longitude, altitude = position(tags)
        return Photo(
            captured_at=taken,
            captured_from=source,
            device=device(path, tags),
            width=width,
            height=height,
            mode=mode,
            format=image.format or "unknown",
            frames=_frames(image),
            dpi=_dpi(image, tags),
            orientation=_whole(tags.get("Orientation"), 1, 8),
            make=tags.get("Make") or None,
            model=tags.get("Model") or None,
            exposure_s=number(tags.get("ExposureTime"), 0),
            aperture=number(tags.get("FNumber"), 0),
            iso=_whole(tags.get("ISOSpeedRatings"), 1, 10**9),
            focal_mm=number(tags.get("FocalLength"), 0),
            latitude=latitude,
            longitude=longitude,
            altitude_m=altitude,
            exif=tags,
            statistics=statistics,
            phash=phash,
            scores=quality.scores(statistics, width, height),
        )
    except transform.BadImage as error:
        return Photo(error=str(error)[:TEXT_LIMIT])


def _rgb(image: Image.Image) -> Image.Image:
    try:
        return transform.rgb(image)
    # As in transform.apply: a conversion that fails in Pillow must reject this photograph, never stop the stream.
    except Exception as error:
        raise transform.BadImage(f"cannot convert mode {image.mode}: {error}") from error


def exif(image: Image.Image) -> dict[str, str]:
    """All EXIF tags of a PIL image: {standard name: text}.

    Broken EXIF gives the readable tags, and the key _error describes the problem.
    """
    tags: dict[str, str] = {}
    try:
        block = image.getexif()
        for names, entries in (
            (ExifTags.TAGS, dict(block)),
            (ExifTags.TAGS, block.get_ifd(ExifTags.IFD.Exif)),
            (ExifTags.GPSTAGS, block.get_ifd(ExifTags.IFD.GPSInfo)),
        ):
            for tag, value in entries.items():
                if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                    continue
                if len(tags) >= TAG_LIMIT:
                    tags["_error"] = f"more than {TAG_LIMIT} tags; the others were left out"
                    return tags
                tags[names.get(tag, f"0x{tag:04X}")] = _text(value)
    # Pillow's EXIF parser raises nearly any exception on hostile bytes; the photograph itself is fine.
    except Exception as error:
        tags["_error"] = f"{type(error).__name__}: {error}"[:200]
    return tags


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.removeprefix(b"ASCII\0\0\0").rstrip(b"\0")
        text = value.decode("ascii") if value.isascii() else value[:TEXT_LIMIT].hex()
    elif isinstance(value, tuple):
        text = " ".join(map(str, value[:TEXT_LIMIT]))
    else:
        text = str(value)
    # Hostile text can contain lone surrogates, which no store can write.
    return text.replace("\0", "").strip()[:TEXT_LIMIT].encode("utf-8", "replace").decode()


def number(text: str | None, least: float = -math.inf) -> float | None:
    """The first number of an EXIF text.

    None if the text does not start with a number, or the number is below least or not finite (a zero denominator).
    """
    try:
        value = float((text or "").split()[0])
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) and value >= least else None


def _whole(text: str | None, low: int, high: int) -> int | None:
    value = number(text)
    return int(value) if value is not None and low <= value <= high else None


def position(tags: dict[str, str]) -> tuple[float | None, float | None, float | None]:
    """(latitude, longitude, altitude) from the GPS tags: degrees, north and east positive, and metres.

    All are None unless latitude and longitude are both present and in range.
    """
    latitude, longitude = (
        _degrees(tags.get(f"GPS{axis}"), tags.get(f"GPS{axis}Ref", ""), limit)
        for axis, limit in (("Latitude", 90), ("Longitude", 180))
    )
    if latitude is None or longitude is None:
        return None, None, None
    altitude = number(tags.get("GPSAltitude"), 0)
    below = tags.get("GPSAltitudeRef", "") in ("\x01", "1", "01")
    return latitude, longitude, -altitude if altitude is not None and below else altitude


def _degrees(text: str | None, reference: str, limit: float) -> float | None:
    try:
        parts = [float(part) for part in (text or "").split()]
    except ValueError:
        return None
    if not 1 <= len(parts) <= 3:
        return None
    value = sum(part / 60**index for index, part in enumerate(parts))
    if not (math.isfinite(value) and 0 <= value <= limit):
        return None
    return -value if reference[:1] in ("S", "W") else value


def _dpi(image: Image.Image, tags: dict[str, str]) -> float | None:
    """Dots per inch along x, from EXIF (unit 2: inch, 3: centimetre) or else the file header; None if absent."""
    resolution, unit = number(tags.get("XResolution"), 0), tags.get("ResolutionUnit", "2")
    if resolution and unit in ("2", "3"):
        return resolution * (2.54 if unit == "3" else 1)
    header = image.info.get("dpi")
    return number(str(header[0]), 0) if isinstance(header, tuple) and header else None


def _frames(image: Image.Image) -> int:
    try:
        return min(
            int(getattr(image, "n_frames", 1)), 2**31 - 1
        )  # an APNG may declare 2**31, too many for an int column
    except Exception:  # counting seeks through the file; later frames may be cut off, the first frame is complete
        return 1


def captured_at(path: str, tags: dict[str, str], modified_at: datetime, zone: str = "UTC") -> tuple[datetime, str]:
    """(aware UTC datetime, "exif" | "name" | "file"): the first readable time of EXIF, file name, modification time.

    zone: time zone of times without an offset.
    """
    local = ZoneInfo(zone)
    for stamp, offset, fraction in (
        ("DateTimeOriginal", "OffsetTimeOriginal", "SubsecTimeOriginal"),
        ("DateTimeDigitized", "OffsetTimeDigitized", "SubsecTimeDigitized"),
        ("DateTime", "OffsetTime", "SubsecTime"),
    ):
        taken = _exif_time(tags.get(stamp, ""), tags.get(offset, ""), tags.get(fraction, ""), local)
        if taken:
            return taken, "exif"
    taken = _name_time(PurePosixPath(path).name, local)
    return (taken, "name") if taken else (modified_at, "file")


def _name_time(name: str, local: ZoneInfo) -> datetime | None:
    match = NAME_TIME.search(unquote(name))
    if not match:
        return None
    day, hour, minute, second, fraction, utc = match.groups()
    try:
        naive = datetime.fromisoformat(f"{day}T{hour}:{minute}:{second}") + timedelta(seconds=float(fraction or 0))
        taken = naive.replace(tzinfo=UTC if utc else local).astimezone(UTC)
    except (ValueError, OverflowError):
        return None  # not a date: 2021-13-45T99...
    return taken if taken.year in YEARS else None


def _exif_time(stamp: str, offset: str, fraction: str, local: ZoneInfo) -> datetime | None:
    try:
        taken = datetime.strptime(stamp[:19], "%Y:%m:%d %H:%M:%S")
        if re.fullmatch(r"\d{1,6}", fraction):
            taken += timedelta(seconds=float(f"0.{fraction}"))
        taken = taken.replace(
            tzinfo=datetime.strptime(offset, "%z").tzinfo if re.fullmatch(r"[+-]\d\d:\d\d", offset) else local
        )
        taken = taken.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return taken if taken.year in YEARS else None


def device(path: str, tags: dict[str, str]) -> str:
    """The camera's id, or "unknown".

    The first of: device=... in the path, the serial number, the middle of a name <time>_rpi_sensor_3_front_<label>,
    make and model.
    """
    for part in PurePosixPath(path).parts:
        if part.startswith("device="):
            return part.removeprefix("device=")
    if tags.get("BodySerialNumber"):
        return tags["BodySerialNumber"]
    fields = unquote(PurePosixPath(path).stem).split("_")
    if len(fields) > 2 and NAME_TIME.match(fields[0]):
        return "_".join(fields[1:-1])
    return " ".join(filter(None, (tags.get("Make"), tags.get("Model")))) or "unknown"
