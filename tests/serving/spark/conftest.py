"""A lakehouse with photographs and a registry, ready to score."""

import pytest
import rest_service
from spark_photos import land

from lakevision.ingest import stream


@pytest.fixture
def scored(lakehouse, tmp_path):
    """Function from settings to (spark, cfg, places, {number: pyfunc model}).

    24 photographs are ingested. Version 1 of the registry is the champion; there is a version 2.
    """
    spark, make = lakehouse

    def prepare(*settings):
        models = rest_service.registered(tmp_path)[1]
        cfg, places = make(*settings)
        land(places, 0, 24)
        stream.ingest(spark, cfg, places)
        return spark, cfg, places, models

    return prepare
