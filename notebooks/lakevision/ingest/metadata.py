"""What a photograph says of itself: size, EXIF, time, place, device and statistics of its pixels. No Spark in here."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from PIL import ExifTags

from device.model import transform
from lakevision.ingest import image_statistics, quality

# 2021-07-13T03:04:54 as the first accelerator's capture script wrote it (with %3A in most copies), 2026-03-02T081502.123Z as ours does.
NAME_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d):?(\d\d):?(\d\d)(\.\d{1,6})?(Z?)")
# What the capture agent calls a frame: <time>_<boot>_<sequence>[_<label>]; see device/spool/entry.py.
AGENT_NAME = re.compile(NAME_TIME.pattern + r"_[0-9a-f]{8}_\d{6,}(?:_(?P<label>[^_]+))?")
TEXT_LIMIT = 2000  # characters kept of one EXIF value: MakerNotes of some phones run to 100 kB
YEARS = range(
    1980, 2200
)  # before: a clock that was never set; Parquet refuses 1899 and pandas can't hold 2263, so that one odd name would stop everything
TAG_LIMIT = 500  # tags kept of one photograph; a camera writes 60


@dataclass
class Photo:
    """One decoded photograph's columns of the table images; error is set instead where it can't be decoded. scores: see quality.scores()."""

    error: str = None
    captured_at: datetime = None
    captured_from: str = None
    device: str = None
    width: int = None
    height: int = None
    mode: str = None
    format: str = None
    frames: int = None
    dpi: float = None
    orientation: int = None
    make: str = None
    model: str = None
    exposure_s: float = None
    aperture: float = None
    iso: int = None
    focal_mm: float = None
    latitude: float = None
    longitude: float = None
    altitude_m: float = None
    exif: dict = None
    statistics: dict = None
    phash: int = None
    scores: dict = None


def describe(path, data, modified_at, zone="UTC"):
    """A Photo from a file. path: relative to the landing zone; data: bytes; modified_at: aware datetime; zone: the setting ingest.timezone.
    Never raises for what the bytes hold."""
    try:
        image = transform.decode(data)
        tags = exif(image)
        taken, source = captured_at(path, tags, modified_at, zone)
        (width, height), mode = image.size, image.mode  # before the later frames are counted: they may be smaller
        found, phash = image_statistics.of(_rgb(image))
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
            statistics=found,
            phash=phash,
            scores=quality.scores(found, width, height),
        )
    except transform.BadImage as error:
        return Photo(error=str(error)[:TEXT_LIMIT])


def _rgb(image):
    try:
        return transform.rgb(image)
    except (
        Exception
    ) as error:  # as in transform.apply: a conversion that Pillow can't do costs this photograph, never the stream
        raise transform.BadImage(f"cannot convert mode {image.mode}: {error}") from error


def exif(image):
    """All EXIF tags of a PIL image: {standard name: text}. Broken EXIF gives what could be read, and the key _error says what could not."""
    tags = {}
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
                    tags["_error"] = f"more than {TAG_LIMIT} tags; the rest was left out"
                    return tags
                tags[names.get(tag, f"0x{tag:04X}")] = _text(value)
    except (
        Exception
    ) as error:  # Pillow's EXIF parser raises nearly anything on hostile bytes; the photograph itself is fine
        tags["_error"] = f"{type(error).__name__}: {error}"[:200]
    return tags


def _text(value):
    if isinstance(value, bytes):
        value = value.removeprefix(b"ASCII\0\0\0").rstrip(b"\0")
        text = value.decode("ascii") if value.isascii() else value[:TEXT_LIMIT].hex()
    elif isinstance(value, tuple):
        text = " ".join(map(str, value[:TEXT_LIMIT]))
    else:
        text = str(value)
    # Lone surrogates would come out of hostile text, and no store can write them.
    return text.replace("\0", "").strip()[:TEXT_LIMIT].encode("utf-8", "replace").decode()


def number(text, least=-math.inf):
    """The first number of an EXIF text as a float; None where there is none, it is not finite (a zero denominator) or it is below least."""
    try:
        value = float((text or "").split()[0])
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) and value >= least else None


def _whole(text, low, high):
    value = number(text)
    return int(value) if value is not None and low <= value <= high else None


def position(tags):
    """(latitude, longitude, altitude in metres) in degrees, north and east positive, from the GPS tags; Nones without a whole pair on the globe."""
    latitude, longitude = (
        _degrees(tags.get(f"GPS{axis}"), tags.get(f"GPS{axis}Ref", ""), limit)
        for axis, limit in (("Latitude", 90), ("Longitude", 180))
    )
    if latitude is None or longitude is None:
        return None, None, None
    altitude = number(tags.get("GPSAltitude"), 0)
    below = tags.get("GPSAltitudeRef", "") in ("\x01", "1", "01")
    return latitude, longitude, -altitude if altitude is not None and below else altitude


def _degrees(text, reference, limit):
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


def _dpi(image, tags):
    """Dots per inch along x, from EXIF (2: per inch, 3: per centimetre) or the file's own header; None where neither says."""
    resolution, unit = number(tags.get("XResolution"), 0), tags.get("ResolutionUnit", "2")
    if resolution and unit in ("2", "3"):
        return resolution * (2.54 if unit == "3" else 1)
    header = image.info.get("dpi")
    return number(str(header[0]), 0) if isinstance(header, tuple) and header else None


def _frames(image):
    try:
        return min(int(getattr(image, "n_frames", 1)), 2**31 - 1)  # an APNG may claim 2**31, which no int column holds
    except Exception:  # counting seeks through the file, and the later frames may be cut: the first one is whole
        return 1


def captured_at(path, tags, modified_at, zone="UTC"):
    """(aware UTC datetime, "exif" | "name" | "file"): the first of EXIF, the name and the file's own time that can be read."""
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


def _name_time(name, local):
    match = NAME_TIME.search(unquote(name))
    if not match:
        return None
    day, hour, minute, second, fraction, utc = match.groups()
    try:
        naive = datetime.fromisoformat(f"{day}T{hour}:{minute}:{second}") + timedelta(seconds=float(fraction or 0))
        taken = naive.replace(tzinfo=UTC if utc else local).astimezone(UTC)
    except (ValueError, OverflowError):
        return None  # digits that are no date: 2021-13-45T99...
    return taken if taken.year in YEARS else None


def _exif_time(stamp, offset, fraction, local):
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


def device(path, tags):
    """The camera's id: device=... in the path, its serial number, the name's field as in <time>_rpi_sensor_3_front_<label>, make and model."""
    for part in PurePosixPath(path).parts:
        if part.startswith("device="):
            return part.removeprefix("device=")
    if tags.get("BodySerialNumber"):
        return tags["BodySerialNumber"]
    fields = unquote(PurePosixPath(path).stem).split("_")
    if len(fields) > 2 and NAME_TIME.match(fields[0]):
        return "_".join(fields[1:-1])
    return " ".join(filter(None, (tags.get("Make"), tags.get("Model")))) or "unknown"
