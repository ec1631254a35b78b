"""Planted files and random mutants are decoded or rejected in words, and each row fits the table."""

import hashlib
import io
import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from corpus import corpus
from mutants import mutants
from PIL import Image

from device.model import transform
from lakevision.ingest import image_reader, metadata

MODIFIED = datetime(2026, 5, 1, tzinfo=UTC)
FILES = corpus()
MUTANTS = 5_000 if os.environ.get("LAKEVISION_SOAK") == "1" else 300
KEPT = sorted((Path(__file__).resolve().parents[1] / "data").glob("mutant_*"))


@pytest.mark.parametrize("file", FILES, ids=[file.id for file in FILES])
def test_planted_file_decodes_or_is_rejected(file):
    photo = metadata.describe(file.name, file.data, MODIFIED)
    if file.reason:
        assert file.reason in photo.error and photo.statistics is None
    else:
        assert photo.error is None
        assert {name: getattr(photo, name) for name in file.expected} == file.expected
        assert len(transform.pixels(file.data, "decode|upright|rgb|resize(16)")) == 16 * 16 * 3, (
            "the model must decode the file, too"
        )


def test_planted_files_are_unique():
    assert (
        len({file.name for file in FILES})
        == len({file.data for file in FILES})
        == len({file.id for file in FILES})
        == len(FILES)
    )


def test_ghostscript_never_runs(monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript got an EPS file"))
    for file in FILES:
        if "PostScript" in file.reason:
            with pytest.raises(transform.BadImage, match="save it as JPEG"):
                transform.decode(file.data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation):
    """The picture is stored turned, with the tag that turns it back."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.new("RGB", (64, 48), "blue")
    upright.paste("red", (0, 0, 20, 48))
    upright.paste("lime", (0, 0, 64, 10))
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    tags = Image.Exif()
    tags[0x0112] = orientation
    out = io.BytesIO()
    stored.save(out, "PNG", exif=tags)
    assert transform.upright(transform.decode(out.getvalue())).tobytes() == upright.tobytes()


@pytest.fixture(scope="module")
def schema(spark):
    """Arrow schema of the workers' rows; Spark parses the types."""
    return image_reader._arrow(image_reader.DESCRIBED)


def checked(name, data, folder, schema):
    """Checks the row that a worker makes of a file: a reason or all columns, with the types of the table.

    Returns the reason or None.
    """
    (folder / "x").write_bytes(data)
    row = image_reader._describe(str(folder), "x", MODIFIED, "UTC")
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    if row["error"]:
        assert len(row["error"]) > 8 and row["kept"] == data and row["statistics"] is None
    else:
        missing = [
            key
            for key in (
                "captured_at",
                "captured_from",
                "device",
                "width",
                "height",
                "mode",
                "format",
                "frames",
                "exif",
                "statistics",
                "phash",
                "score_dark",
            )
            if row[key] is None
        ]
        assert not missing and row["kept"] is None, (name, missing)
    pa.RecordBatch.from_pylist([row], schema=schema).validate(full=True)
    return row["error"]


@pytest.mark.spark
def test_mutants_never_crash_the_reader(tmp_path, schema):
    errors, count = [], 0
    for name, data in mutants(MUTANTS, seed=5):
        try:
            errors.append(checked(name, data, tmp_path, schema))
        except Exception as error:
            kept = Path(os.environ.get("TMPDIR", "/tmp")) / f"mutant_{hashlib.sha256(data).hexdigest()[:12]}"
            kept.write_bytes(data)
            raise AssertionError(
                f"{name}: {type(error).__name__}: {error}; kept as {kept}: move it to tests/data/"
            ) from error
        count += 1
    bad = sum(error is not None for error in errors)
    assert count == MUTANTS and 0.1 * count < bad < 0.9 * count, "some mutants must decode and some must not"
    print(f"{count} mutants: {count - bad} decode, {bad} are rejected")


@pytest.mark.spark
@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_mutant_that_once_failed_is_handled(path, tmp_path, schema):
    checked(path.name, path.read_bytes(), tmp_path, schema)
