"""The EXIF block of a photograph, as a camera writes it (Exif 2.32, CIPA DC-008-2019; tag numbers from its tables 4 to 8)."""

import hashlib
from datetime import datetime, timezone
from fractions import Fraction
from functools import lru_cache

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

BASE, IFD, GPS = ExifTags.Base, ExifTags.IFD, ExifTags.GPS


def build(
    taken_at,
    make,
    model,
    exposure_s=None,
    f_number=None,
    iso=None,
    focal_mm=None,
    position=None,
    maker_note=None,
    user_comment=None,
    serial=None,
    software="lakevision",
    orientation=None,
    image_id=None,
    exposure_held=None,
):
    """EXIF bytes for PIL's save(exif=...).

    taken_at: aware datetime; written as local time of its own offset, with OffsetTime* and microseconds as sub-seconds.
    exposure_s, f_number, focal_mm: float seconds, f-stop, millimetres. iso: int. position: (latitude, longitude) in degrees
    or (latitude, longitude, altitude in metres). maker_note, user_comment, serial: ASCII text. orientation: 1 to 8, how the
    pixels lie. image_id: 32 hex digits. exposure_held: whether exposure and white balance were held. What is None is left out.
    Raises ValueError for a naive time or a position off the globe.
    """
    if taken_at.tzinfo is None:
        raise ValueError(f"taken_at needs a time zone, got {taken_at!r}")
    exif = Image.Exif()
    stamp = taken_at.strftime("%Y:%m:%d %H:%M:%S")
    offset = taken_at.strftime("%z")
    offset = f"{offset[:3]}:{offset[3:5]}"
    exif[BASE.Make], exif[BASE.Model], exif[BASE.Software], exif[BASE.DateTime] = make, model, software, stamp
    if orientation is not None:
        exif[BASE.Orientation] = orientation
    photo = exif.get_ifd(IFD.Exif)
    for tag in (BASE.DateTimeOriginal, BASE.DateTimeDigitized):
        photo[tag] = stamp
    for tag in (BASE.OffsetTime, BASE.OffsetTimeOriginal, BASE.OffsetTimeDigitized):
        photo[tag] = offset
    for tag in (BASE.SubsecTimeOriginal, BASE.SubsecTimeDigitized):
        photo[tag] = f"{taken_at.microsecond:06d}"
    if exposure_s is not None:
        photo[BASE.ExposureTime] = IFDRational(Fraction(exposure_s).limit_denominator(1_000_000))
    if f_number is not None:
        photo[BASE.FNumber] = IFDRational(Fraction(f_number).limit_denominator(100))
    if focal_mm is not None:
        photo[BASE.FocalLength] = IFDRational(Fraction(focal_mm).limit_denominator(100))
    if iso is not None:
        photo[BASE.ISOSpeedRatings] = int(iso)
    if maker_note is not None:
        photo[BASE.MakerNote] = maker_note.encode("ascii", "replace")
    if user_comment is not None:
        photo[BASE.UserComment] = b"ASCII\0\0\0" + user_comment.encode("ascii", "replace")
    if serial is not None:
        photo[BASE.BodySerialNumber] = serial
    if image_id is not None:
        photo[BASE.ImageUniqueID] = image_id
    if exposure_held is not None:
        photo[BASE.ExposureMode] = photo[BASE.WhiteBalance] = int(exposure_held)  # 1: manual
    if position is not None:
        exif.get_ifd(IFD.GPSInfo).update(_gps(*position))
    return exif.tobytes()


def _gps(latitude, longitude, altitude=None):
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise ValueError(
            f"position {latitude}, {longitude} is not on the globe: latitude -90 to 90, longitude -180 to 180"
        )
    tags = {
        GPS.GPSVersionID: b"\2\3\0\0",
        GPS.GPSLatitudeRef: "N" if latitude >= 0 else "S",
        GPS.GPSLatitude: _sexagesimal(abs(latitude)),
        GPS.GPSLongitudeRef: "E" if longitude >= 0 else "W",
        GPS.GPSLongitude: _sexagesimal(abs(longitude)),
    }
    if altitude is not None:
        tags[GPS.GPSAltitudeRef] = b"\0" if altitude >= 0 else b"\1"
        tags[GPS.GPSAltitude] = IFDRational(Fraction(abs(altitude)).limit_denominator(100))
    return tags


def _sexagesimal(degrees):
    """Degrees as (degrees, minutes, seconds); seconds to 1/10,000, which is 3 mm on the ground."""
    total = round(degrees * 3600 * 10_000)
    minutes, seconds = divmod(total, 60 * 10_000)
    return IFDRational(minutes // 60, 1), IFDRational(minutes % 60, 1), IFDRational(seconds, 10_000)


# ---- the agent's own facts: which run of the device took it, and how far its clock can be trusted

UPRIGHT = {0: 1, 90: 6, 180: 3, 270: 8}  # degrees clockwise that make it upright -> EXIF orientation
_AT = datetime(1111, 11, 11, 11, 11, 11, 111213, timezone.utc)  # stands in the template where the time goes
_ID = "0123456789abcdef" * 2


def for_frame(taken_at, device, boot_id, sequence, clock_synced, uptime_s, **camera):
    """EXIF bytes of one frame of the agent; `camera` goes to build().

    taken_at: aware datetime in UTC. boot_id: 32 hex digits. sequence: int. clock_synced: bool or None. uptime_s: float seconds
    since boot. They stand in UserComment, which agent_facts() reads. ImageUniqueID is the MD5 of device, boot and sequence.

    A camera's settings hardly change, so the block is built once for them and then only the bytes that differ are replaced:
    0.02 ms in place of 0.5 ms.
    """
    block = _template(device, tuple(sorted(camera.items())))
    for old, new in (
        (f"{_AT:%Y:%m:%d %H:%M:%S}", f"{taken_at:%Y:%m:%d %H:%M:%S}"),
        (f"{_AT.microsecond:06d}", f"{taken_at.microsecond:06d}"),
        (_ID, hashlib.md5(f"{device}/{boot_id}/{sequence}".encode(), usedforsecurity=False).hexdigest()),
        (_facts("0" * 32, 0, None, 0.0), _facts(boot_id, sequence, clock_synced, uptime_s)),
    ):
        block = block.replace(old.encode(), new.encode())
    return block


def agent_facts(exif):
    """What for_frame() noted, from a PIL Exif: a dict with boot_id, sequence (int), clock_synced (True, False or None) and uptime_s; {} without."""
    comment = exif.get_ifd(IFD.Exif).get(BASE.UserComment, b"")
    text = comment[8:].decode("ascii", "replace") if isinstance(comment, bytes) else str(comment)
    facts = dict(part.split("=", 1) for part in text.split() if "=" in part)
    if not {"boot_id", "sequence", "clock_synced", "uptime_s"} <= facts.keys():
        return {}
    return {
        "boot_id": facts["boot_id"],
        "sequence": int(facts["sequence"]),
        "uptime_s": float(facts["uptime_s"]),
        "clock_synced": {"yes": True, "no": False}.get(facts["clock_synced"]),
    }


def _facts(boot_id, sequence, clock_synced, uptime_s):
    synced = {True: "yes", False: "no ", None: "?  "}[clock_synced]  # all of one width: the block has fixed offsets
    return f"boot_id={boot_id} sequence={sequence:010d} clock_synced={synced} uptime_s={uptime_s:014.3f}"


@lru_cache(maxsize=4)
def _template(device, camera):
    return build(_AT, serial=device, image_id=_ID, user_comment=_facts("0" * 32, 0, None, 0.0), **dict(camera))


def splice(jpeg, block):
    """The JPEG with this EXIF block in place of its own, as byte strings that follow each other; pixels are not touched.

    Raises ValueError where the bytes are not a JPEG, or the block is over the 65,533 bytes that APP1 can hold.
    """
    if jpeg[:2] != b"\xff\xd8" or len(jpeg) < 4:
        raise ValueError(f"not a JPEG: {len(jpeg)} bytes that start with {bytes(jpeg[:8])!r}")
    if len(block) > 65_533:
        raise ValueError(f"EXIF of {len(block)} bytes, 65,533 at most")
    kept, at = [], 2
    while jpeg[at] == 0xFF and jpeg[at + 1] in (0xE0, 0xE1):  # APP0 (JFIF) and APP1 (Exif or XMP) come first
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if end + 2 > len(jpeg):
            raise ValueError(f"not a JPEG: it ends within its headers, after {len(jpeg)} bytes")
        if jpeg[at + 4 : at + 10] != b"Exif\0\0":
            kept.append(jpeg[at:end])
        at = end
    return [b"\xff\xd8\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block, *kept, memoryview(jpeg)[at:]]
