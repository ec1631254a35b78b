"""What a photograph says of itself: size, EXIF, time, device, label and statistics of its pixels. No Spark in here."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import PurePosixPath
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import numpy as np
from PIL import ExifTags

from device import transform

# 2021-07-13T03:04:54 as the first accelerator's capture script wrote it (with %3A in most copies), 2026-03-02T081502.123Z as ours does.
NAME_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d):?(\d\d):?(\d\d)(\.\d{1,6})?(Z?)")
# What the capture agent calls a frame: <time>_<boot>_<sequence>[_<label>]; see device/entry.py.
AGENT_NAME = re.compile(NAME_TIME.pattern + r"_[0-9a-f]{8}_\d{6,}(?:_(?P<label>[^_]+))?")
TEXT_LIMIT = 2000  # characters kept of one EXIF value: MakerNotes of some phones run to 100 kB


@dataclass
class Photo:
    """One decoded photograph's columns of the table images; error is set instead where it can't be decoded."""

    error: str = None
    captured_at: datetime = None
    captured_from: str = None
    device: str = None
    label: str = None
    width: int = None
    height: int = None
    mode: str = None
    format: str = None
    exif: dict = None
    statistics: dict = None


def describe(path, data, modified_at, labels="auto", zone="UTC"):
    """A Photo from a file. path: relative to the landing zone; data: bytes; modified_at: aware datetime;
    labels and zone: the settings ingest.labels and ingest.timezone. Never raises for what the bytes hold."""
    try:
        image = transform.decode(data)
        tags = exif(image)
        taken, source = captured_at(path, tags, modified_at, zone)
        return Photo(captured_at=taken, captured_from=source, device=device(path, tags), label=label(path, labels),
                     width=image.width, height=image.height, mode=image.mode, format=image.format or "unknown", exif=tags,
                     statistics=statistics(transform.rgb(image)))
    except transform.BadImage as error:
        return Photo(error=str(error)[:TEXT_LIMIT])


def exif(image):
    """All EXIF tags of a PIL image: {standard name: text}. Broken EXIF gives what could be read."""
    tags = {}
    try:
        block = image.getexif()
        for names, entries in ((ExifTags.TAGS, dict(block)), (ExifTags.TAGS, block.get_ifd(ExifTags.IFD.Exif)),
                               (ExifTags.GPSTAGS, block.get_ifd(ExifTags.IFD.GPSInfo))):
            for tag, value in entries.items():
                if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                    continue
                tags[names.get(tag, f"0x{tag:04X}")] = _text(value)
    except Exception as error:  # Pillow's EXIF parser raises nearly anything on hostile bytes; the photograph itself is fine
        tags["_error"] = f"{type(error).__name__}: {error}"[:200]
    return tags


def _text(value):
    if isinstance(value, bytes):
        value = value.removeprefix(b"ASCII\0\0\0").rstrip(b"\0")
        text = value.decode("ascii") if value.isascii() else value[:TEXT_LIMIT].hex()
    elif isinstance(value, tuple):
        text = " ".join(map(str, value))
    else:
        text = str(value)
    return text.replace("\0", "").strip()[:TEXT_LIMIT]


def captured_at(path, tags, modified_at, zone="UTC"):
    """(aware UTC datetime, "exif" | "name" | "file"): the first of EXIF, the name and the file's own time that can be read."""
    local = ZoneInfo(zone)
    for stamp, offset, fraction in (("DateTimeOriginal", "OffsetTimeOriginal", "SubsecTimeOriginal"),
                                    ("DateTimeDigitized", "OffsetTimeDigitized", "SubsecTimeDigitized"), ("DateTime", "OffsetTime", "SubsecTime")):
        taken = _exif_time(tags.get(stamp, ""), tags.get(offset, ""), tags.get(fraction, ""), local)
        if taken:
            return taken, "exif"
    match = NAME_TIME.search(unquote(PurePosixPath(path).name))
    if match:
        day, hour, minute, second, fraction, utc = match.groups()
        try:
            naive = datetime.fromisoformat(f"{day}T{hour}:{minute}:{second}")
            naive += timedelta(seconds=float(fraction or 0))
            return naive.replace(tzinfo=timezone.utc if utc else local).astimezone(timezone.utc), "name"
        except (ValueError, OverflowError):
            return modified_at, "file"  # digits that are no date: 2021-13-45T99...
    return modified_at, "file"


def _exif_time(stamp, offset, fraction, local):
    try:
        taken = datetime.strptime(stamp[:19], "%Y:%m:%d %H:%M:%S")
        if re.fullmatch(r"\d{1,6}", fraction):
            taken += timedelta(seconds=float(f"0.{fraction}"))
        taken = taken.replace(tzinfo=datetime.strptime(offset, "%z").tzinfo if re.fullmatch(r"[+-]\d\d:\d\d", offset) else local)
        taken = taken.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return taken if taken.year >= 1980 else None  # cameras whose clock was never set write 0000 or 1970


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


def label(path, labels="auto"):
    """The class of an image by its path: the class folder it lies in, else the last `_` field of its name; None where there is none."""
    path = PurePosixPath(path)
    folder, agents = path.parent.name, AGENT_NAME.fullmatch(path.stem)
    if labels in ("auto", "folder") and folder and "=" not in folder:
        return folder
    if labels in ("auto", "name") and agents:
        return agents["label"]  # a frame without a label ends in its sequence number, which is none
    if labels in ("auto", "name") and "_" in path.stem:
        return path.stem.rsplit("_", 1)[1] or None
    return None


def statistics(image):
    """Statistics of an RGB image's pixels, from its histograms: one pass, no float copy of the picture.

    Returns {"bands": [{band, mean, median, stddev, min, max}, ...], "brightness", "contrast", "entropy"}; bands in 0..255,
    brightness and contrast (mean and standard deviation of ITU-R 601 luma) in 0..1, entropy (Shannon, of luma) in bits, 0..8.
    """
    bands = [dict(band=name, **_moments(counts)) for name, counts in zip("RGB", np.reshape(image.histogram(), (3, 256)))]
    luma = np.asarray(image.convert("L").histogram())
    of_luma = _moments(luma)
    share = luma[luma > 0] / luma.sum()
    return {"bands": bands, "brightness": of_luma["mean"] / 255, "contrast": of_luma["stddev"] / 255,
            "entropy": float(-(share * np.log2(share)).sum()) + 0.0}


def _moments(counts):
    """Mean, median, deviation and extrema of 0..255 values given how often each occurs. counts: int array (256,)."""
    values, total = np.arange(256), counts.sum()
    mean = float((counts * values).sum() / total)
    variance = float((counts * (values - mean) ** 2).sum() / total)
    present = np.flatnonzero(counts)
    median = float(np.searchsorted(counts.cumsum(), (total + 1) // 2))
    return {"mean": mean, "median": median, "stddev": variance ** 0.5, "min": int(present[0]), "max": int(present[-1])}
