"""Photographs damaged at random, with a seed: bytes flipped, cut out or inserted, headers swapped."""

import io
import random
from functools import lru_cache
from pathlib import Path

from PIL import Image

from device import exif
from device.simulation import porch

REAL = Path(__file__).resolve().parents[3] / "shared" / "package_images"
HEADERS = (
    b"\xff\xd8\xff\xe0",
    b"\xff\xd8\xff\xe1",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\x10\0\0\0WEBP",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"BM",
    b"P6\n9 9\n255\n",
    b"%!PS-Adobe-3.0",
)


@lru_cache(maxsize=1)
def sources():
    """Undamaged files: simulated frames with all EXIF tags in every accepted format, and up to 6 real photographs.

    The real photographs are optional.
    """
    files = []
    for scene in porch.plan(3, size=(120, 90)):
        files.append(porch.jpeg(scene))
        picture = porch.picture(scene)
        block = exif.build(
            scene.taken_at,
            "Maker",
            "Model",
            exposure_s=0.01,
            f_number=1.8,
            iso=100,
            position=(48.2, 16.4, 171.0),
            serial="s",
            user_comment="c" * 200,
        )
        for kind, options in (
            ("PNG", {"exif": block}),
            ("WEBP", {"exif": block}),
            ("TIFF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("GIF", {}),
            ("BMP", {}),
            ("PNG", {"save_all": True, "append_images": [picture.rotate(90)]}),
        ):
            out = io.BytesIO()
            picture.save(out, kind, **options)
            files.append(out.getvalue())
        files += [porch.jpeg(scene, quality=quality) for quality in (30, 50, 70, 95)]
    for path in sorted(REAL.glob("*.jpg"))[::40]:
        with Image.open(path) as image:  # smaller, but with EXIF, because 200 kB decode slowly
            out = io.BytesIO()
            image.reduce(4).save(out, "JPEG", exif=image.info.get("exif", b""))
        files.append(out.getvalue())
    return files


def mutants(count, seed):
    """Yields (name, bytes). The same seed and the same version of Pillow give the same files."""
    rng = random.Random(seed)
    for index in range(count):
        data = bytearray(rng.choice(sources()))
        done = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            kind = rng.choice(("flip", "flip", "head", "head", "cut", "end", "insert", "header", "length"))
            done.append(kind)
            # The parts that break parsers are mostly in the first kilobyte: EXIF, tables, sizes.
            reach = min(len(data), 1200) if kind in ("head", "length") else len(data)
            at = rng.randrange(max(1, reach))
            if kind in ("flip", "head"):
                for _ in range(rng.choice((1, 2, 8, 40))):
                    if data:
                        data[rng.randrange(max(1, min(len(data), reach)))] = rng.randrange(256)
            elif kind == "cut":
                del data[at : at + rng.choice((1, 2, 50, 5000))]
            elif kind == "end":
                del data[at:]
            elif kind == "insert":
                data[at:at] = rng.randbytes(rng.choice((1, 2, 50, 3000)))
            elif kind == "header":
                header = rng.choice(HEADERS)
                data[: len(header)] = header
            else:
                data[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
        yield f"mutant_{index:05d}_{'_'.join(done)}.jpg", bytes(data)
