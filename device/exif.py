"""The EXIF block of a photograph, as a camera writes it (Exif 2.32, CIPA DC-008-2019; tag numbers from its tables 4 to 8)."""

from fractions import Fraction

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

BASE, IFD, GPS = ExifTags.Base, ExifTags.IFD, ExifTags.GPS


def build(taken_at, make, model, exposure_s=None, f_number=None, iso=None, focal_mm=None, position=None, maker_note=None,
          user_comment=None, serial=None, software="lakevision"):
    """EXIF bytes for PIL's save(exif=...).

    taken_at: aware datetime; written as local time of its own offset, with OffsetTime* and microseconds as sub-seconds.
    exposure_s, f_number, focal_mm: float seconds, f-stop, millimetres. iso: int. position: (latitude, longitude) in degrees
    or (latitude, longitude, altitude in metres). maker_note, user_comment, serial: ASCII text. What is None is left out.
    Raises ValueError for a naive time or a position off the globe.
    """
    if taken_at.tzinfo is None:
        raise ValueError(f"taken_at needs a time zone, got {taken_at!r}")
    exif = Image.Exif()
    stamp = taken_at.strftime("%Y:%m:%d %H:%M:%S")
    offset = taken_at.strftime("%z")
    offset = f"{offset[:3]}:{offset[3:5]}"
    exif[BASE.Make], exif[BASE.Model], exif[BASE.Software], exif[BASE.DateTime] = make, model, software, stamp
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
    if position is not None:
        exif.get_ifd(IFD.GPSInfo).update(_gps(*position))
    return exif.tobytes()


def _gps(latitude, longitude, altitude=None):
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise ValueError(f"position {latitude}, {longitude} is not on the globe: latitude -90 to 90, longitude -180 to 180")
    tags = {
        GPS.GPSVersionID: b"\2\3\0\0",
        GPS.GPSLatitudeRef: "N" if latitude >= 0 else "S", GPS.GPSLatitude: _sexagesimal(abs(latitude)),
        GPS.GPSLongitudeRef: "E" if longitude >= 0 else "W", GPS.GPSLongitude: _sexagesimal(abs(longitude)),
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
