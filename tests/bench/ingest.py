"""What ingest costs, against the common way and against the limit of the machine, in the same run.

    python tests/bench/ingest.py [FOLDER]       # 8 minutes on 2 cores; FOLDER of JPEGs, else simulated photographs

vs_row_udfs   photographs/s over those of two row UDFs that decode twice and a write to Delta, the common way, for the
              same metadata and statistics
of_plain      photographs/s over those of two plain processes: the same describing code with Pillow, the same columns to
              Parquet with pyarrow, no Spark, no Delta, no duplicates, no labels: the limit
growth        time per photograph of a table of 8,000 over one of 500, each filled by one run: flat is 1

Both sides of a ratio persist the bytes. 2,000 photographs, each of its own SHA-256, in a session warmed by two runs;
three turns, the middle ratio counts. Start-up of a cold session is told apart. The last line is JSON.
"""

import os
import shutil
import statistics
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import rig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "notebooks"), str(ROOT)]
COUNT, TURNS, GROWTH = 2000, 3, (500, 2000, 8000)


def originals(folder):
    """[(name, bytes)] of the JPEGs to repeat."""
    if folder:
        return [(path.name, path.read_bytes()) for path in sorted(Path(folder).glob("*.jpg"))]
    from device.simulation import porch

    return [(porch.key(scene).replace("/", "_"), porch.jpeg(scene)) for scene in porch.plan(240)]


def fill(landing, photographs, count):
    """count files, each with bytes of its own: a number behind the end of the JPEG, which no decoder reads."""
    for index in range(count):
        name, data = photographs[index % len(photographs)]
        (landing / f"{index:05d}_{name}").write_bytes(data + b"%d" % index)


def lakehouse(scratch, name, photographs, count, spark=None):
    """(Config, Places) of a lakehouse of its own whose landing zone holds count photographs."""
    from lakevision.ingest import tables
    from lakevision.platform import config, workspace

    cfg = config.load("local", [f"storage.root={scratch / name}", f"storage.schema=bench_{name}"])
    places = workspace.places(cfg)
    fill(Path(places.landing), photographs, count)
    if spark:
        tables.create(spark, places)
    return cfg, places


def ours(spark, cfg, places):
    from lakevision.ingest import stream

    done = stream.ingest(spark, cfg, places)
    assert (done.images, done.rejected) == (done.landed, 0), done
    return done.images / done.seconds


def row_udfs(spark, folder, out):
    """The common way: a row UDF for the metadata and one for the statistics, each with a decode of its own, and a write
    to Delta.

    They make the columns that ingest makes from one file, with its own code: no quality, no duplicates, no labels.
    """
    # 60 lines: the common way is shown whole, as a notebook has it.
    from pyspark.sql import functions as F

    from lakevision.ingest import image_reader, tables

    types = {column.name: column.type for column in tables.IMAGES if column in image_reader.ALONE}
    told = [name for name in types if name not in ("statistics", "phash", "captured_from", "frames", "dpi")]

    @F.udf(", ".join(f"{name}: {types[name]}" for name in told).join(("struct<", ">")))
    def metadata(path, content, modified):
        from device.model import transform
        from lakevision.ingest import metadata

        image = transform.decode(bytes(content))
        tags = metadata.exif(image)
        latitude, longitude, altitude = metadata.position(tags)
        row = {
            "captured_at": metadata.captured_at(path, tags, modified)[0],
            "device": metadata.device(path, tags),
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "format": image.format,
            "orientation": metadata._whole(tags.get("Orientation"), 1, 8),
            "make": tags.get("Make"),
            "model": tags.get("Model"),
            "exposure_s": metadata.number(tags.get("ExposureTime")),
            "aperture": metadata.number(tags.get("FNumber")),
            "iso": metadata._whole(tags.get("ISOSpeedRatings"), 1, 10**9),
            "focal_mm": metadata.number(tags.get("FocalLength")),
            "latitude": latitude,
            "longitude": longitude,
            "altitude_m": altitude,
            "exif": tags,
        }
        return tuple(row[name] for name in told)

    @F.udf(f"struct<statistics: {types['statistics']}, phash: bigint>")
    def pixels(content):
        from device.model import transform
        from lakevision.ingest import image_statistics

        found, phash = image_statistics.of(transform.rgb(transform.decode(bytes(content))))
        for band in (*found["bands"], found["luma"]):
            band["histogram"] = band["histogram"].tolist()
        return found, phash

    began = time.monotonic()
    files = spark.read.format("binaryFile").load(folder)
    described = files.withColumns(
        {
            "sha256": F.sha2("content", 256),
            "metadata": metadata("path", "content", "modificationTime"),
            "pixels": pixels("content"),
        }
    )
    described.write.format("delta").mode("overwrite").save(out)
    return COUNT / (time.monotonic() - began)


def share(job):
    """One plain process: describes its share of the files and writes them to one Parquet file."""
    folder, names, out, schema = job
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    from device import memory
    from lakevision.ingest import image_reader

    memory.keep()
    with pq.ParquetWriter(out, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, len(names), 64):
            rows = []
            for name in names[start : start + 64]:
                path = os.path.join(folder, name)
                modified = datetime.datetime.fromtimestamp(os.stat(path).st_mtime, datetime.UTC)
                row = image_reader._describe(folder, name, modified, "UTC", keep=True)
                rows.append({**row, "content": row["kept"]})
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def plain(pool, folder, out):
    import pyarrow as pa

    from lakevision.ingest import image_reader

    fields = [
        field
        for field in image_reader._arrow(image_reader.DESCRIBED)
        if field.name not in ("kept", "signature", "error")
    ]
    schema = pa.schema([*fields, pa.field("content", pa.binary())])
    names = sorted(os.listdir(folder))
    out.mkdir()
    began = time.monotonic()
    pool.map(share, [(folder, names[part::2], str(out / f"{part}.parquet"), schema) for part in range(2)], chunksize=1)
    return len(names) / (time.monotonic() - began)


def in_turns(spark, pool, scratch, photographs):
    """{name: photographs/s of each turn}; a first turn warms all three."""
    rates = {"ours": [], "row_udfs": [], "plain": []}
    for turn in range(-1, TURNS):
        cfg, places = lakehouse(scratch, f"turn{turn + 1}", photographs, COUNT, spark)
        found = {
            "plain": plain(pool, places.landing, scratch / "plain"),
            "ours": ours(spark, cfg, places),
            "row_udfs": row_udfs(spark, places.landing, str(scratch / "rows")),
        }
        print(
            "warming" if turn < 0 else f"turn {turn + 1}",
            {name: round(rate) for name, rate in found.items()},
            "photographs/s",
            flush=True,
        )
        for name in rates:
            rates[name] += [found[name]] * (turn >= 0)
        for used in (scratch / "plain", scratch / "rows", Path(places.root)):
            shutil.rmtree(used)
    return rates


def main(folder=None):
    photographs = originals(folder)
    size = statistics.mean(len(data) for _, data in photographs) / 1000
    print(f"{len(photographs)} photographs of {size:.0f} kB, repeated to {COUNT}", flush=True)
    from lakevision.platform import workspace

    with rig.scratch_folder() as scratch, get_context("spawn").Pool(2) as pool:
        began = time.monotonic()
        cfg, places = lakehouse(scratch, "cold", photographs, 240)
        spark = workspace.spark(cfg)
        ours(spark, cfg, places)
        cold = time.monotonic() - began
        rates = in_turns(spark, pool, scratch, photographs)
        each = []
        for count in GROWTH:
            cfg, places = lakehouse(scratch, f"growth{count}", photographs, count, spark)
            each.append(1000 / ours(spark, cfg, places))
            print(f"{count} photographs: {each[-1]:.2f} ms each", flush=True)
            shutil.rmtree(places.root)
        spark.stop()

    def ratio(other):
        pairs = zip(rates["ours"], rates[other])
        return round(statistics.median(mine / theirs for mine, theirs in pairs), 3)

    figures = {
        "cold_session_240_s": round(cold, 1),
        **{f"{name}_per_s": round(statistics.median(values)) for name, values in rates.items()},
        "growth_ms": [round(value, 2) for value in each],
    }
    ratios = {"vs_row_udfs": ratio("row_udfs"), "of_plain": ratio("plain"), "growth": round(each[-1] / each[0], 3)}
    rig.print_result("ingest", ratios, **figures)


if __name__ == "__main__":
    main(*sys.argv[1:2])
