"""With ingest.keep_content: false, every later stage reads the bytes from the landing zone."""

import shutil
from pathlib import Path

import pytest
from corpus import encoded, picture
from lake import put

from lakevision.dataset import cache, split_table
from lakevision.ingest import landing, stream, tables
from lakevision.notebook import samples

pytestmark = pytest.mark.spark


def test_later_stages_read_the_landing_zone(lakehouse):
    spark, make = lakehouse
    cfg, places = make("ingest.keep_content=false", "ingest.labels=name")
    for index in range(12):
        put(places, f"{index:02d}_{'dog' if index % 2 else 'cat'}.jpg", encoded(picture(index)))
    put(places, "bad.jpg", b"no image")
    done = stream.ingest(spark, cfg, places)
    assert (done.images, done.rejected) == (12, 1)
    assert spark.table(places.table("images")).where("content IS NOT NULL").count() == 0
    assert bytes(spark.table(places.table("rejected_images")).first()["content"]) == b"no image", (
        "rejected files must always keep their bytes"
    )
    version = tables.version(spark, places, "images")
    placements = split_table.metadata(spark, places, version).sort_values("path", ignore_index=True)
    placements = placements.assign(episode=placements["path"], split=["train"] * 6 + ["validation"] * 3 + ["test"] * 3)[
        ["path", "sha256", "label", "episode", "split"]
    ]
    built = cache.build(spark, cfg, places, placements, version)
    assert built.counts == {"train": 6, "validation": 3, "test": 3}
    assert spark.read.parquet(built.folder + "/split=test").count() == 3
    split_table.keep_split(spark, places, placements.assign(reason="as planted"), "a scheme", version)
    shown = samples.held_out(spark, places, "a scheme", version, 5)
    assert (
        list(shown["image"]) == [Path(places.landing, path).read_bytes() for path in shown["path"]] and len(shown) == 3
    )

    (Path(places.landing) / "10_cat.jpg").write_bytes(encoded(picture(77)))
    with pytest.raises(landing.Changed, match="10_cat.jpg: the bytes have changed"):
        samples.held_out(spark, places, "a scheme", version, 5)
    shutil.rmtree(places.cache)
    (Path(places.landing) / "10_cat.jpg").unlink()
    with pytest.raises(Exception, match="10_cat.jpg: No such file"):
        cache.build(spark, cfg, places, placements, version)
