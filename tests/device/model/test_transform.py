"""The one transform: every op alone, in a chain, and on images that are not plain RGB JPEGs."""

import io

import pytest
from PIL import Image

from device.model import transform

LINE = "decode|upright|rgb|resize(32)"


def encoded(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def left_red(size=(64, 48)):
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1]))
    return image


def test_pixels_are_raw_rgb_rows():
    raw = transform.pixels(encoded(left_red()), LINE)
    assert len(raw) == 32 * 32 * 3
    assert raw[:3] == b"\xff\0\0" and raw[31 * 3 : 32 * 3] == b"\0\0\xff"


@pytest.mark.parametrize(
    "orientation, corner",
    [
        pytest.param(1, "red", id="as it is"),
        pytest.param(2, "blue", id="mirrored"),
        pytest.param(3, "blue", id="turned 180"),
        pytest.param(4, "red", id="flipped"),
        pytest.param(6, "red", id="turned 90 right"),
        pytest.param(8, "blue", id="turned 90 left"),
    ],
)
def test_upright_follows_exif(orientation, corner):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = transform.apply(transform.decode(encoded(left_red(), "JPEG", exif=exif, quality=95)), LINE)
    red, _, blue = image.getpixel((0, 0))
    assert (red > blue) == (corner == "red")


def test_turned_photograph_equals_upright_one():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = left_red().transpose(Image.Transpose.ROTATE_90)
    assert transform.pixels(encoded(turned, exif=exif), LINE) == transform.pixels(encoded(left_red()), LINE)


@pytest.mark.parametrize(
    "image, expected",
    [
        pytest.param(Image.new("L", (9, 9), 128), (128, 128, 128), id="grey"),
        pytest.param(Image.new("1", (9, 9), 1), (255, 255, 255), id="bilevel"),
        pytest.param(Image.new("I;16", (9, 9), 32896), (128, 128, 128), id="16 bit"),
        pytest.param(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), (255, 255, 255), id="transparent lies on white"),
        pytest.param(Image.new("LA", (9, 9), (7, 255)), (7, 7, 7), id="grey with alpha"),
        pytest.param(Image.new("RGB", (9, 9), "red").quantize(4), (255, 0, 0), id="palette"),
    ],
)
def test_rgb_of_every_mode(image, expected):
    assert transform.rgb(transform.decode(encoded(image))).getpixel((4, 4)) == expected


def test_cmyk_jpeg():
    red = transform.rgb(
        transform.decode(encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95))
    ).getpixel((9, 9))
    assert red[0] > 200 and red[1] < 60 and red[2] < 60


def test_square_keeps_the_middle():
    image = Image.new("RGB", (90, 30), "blue")
    image.paste("red", (30, 0, 60, 30))
    assert transform.square(image).getcolors() == [(900, (255, 0, 0))]


def test_resize_is_antialiased():
    image = Image.new("RGB", (256, 256), "black")
    image.paste("white", (0, 0, 128, 256))
    stripes = Image.new("RGB", (256, 256))
    for x in range(0, 256, 2):
        stripes.paste("white", (x, 0, x + 1, 256))
    assert all(abs(value - 127) < 8 for value in transform.resize(stripes, 16).getpixel((8, 8)))


@pytest.mark.parametrize(
    "data, reason",
    [
        pytest.param(b"", "empty file", id="empty"),
        pytest.param(b"<html>no</html>", "not an image", id="HTML"),
        pytest.param(encoded(left_red(), "JPEG")[:400], "damaged JPEG", id="truncated"),
        pytest.param(encoded(Image.new("1", (20000, 20000))), "too large", id="bomb"),
    ],
)
def test_refused_file_names_the_reason(data, reason):
    with pytest.raises(transform.BadImage, match=reason):
        transform.pixels(data, LINE)


@pytest.mark.parametrize(
    "line, reason",
    [
        pytest.param("decode|rgb|crop|resize(8)", "'crop' is unknown", id="unknown op"),
        pytest.param("decode|rgb|resize", "takes a size", id="no size"),
        pytest.param("decode|rgb(3)|resize(8)", "takes a size", id="size where none goes"),
        pytest.param("rgb|resize(8)", "must begin with decode", id="no decode"),
        pytest.param("decode|resize(8)", "contain rgb", id="no rgb"),
        pytest.param("decode|rgb|resize(8)|upright", "end with resize", id="resize not last"),
        pytest.param("decode|rgb|resize(5000)", "8 to 4096", id="too large"),
    ],
)
def test_wrong_line_names_the_fault(line, reason):
    with pytest.raises(transform.BadTransform, match=reason):
        transform.parse(line)
