"""The second ingest waits, a dead holder's lease expires, and a holder without lease stops writing."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from lakevision.ingest import capture, lease, stream

pytestmark = pytest.mark.spark


@pytest.fixture
def place(lakehouse):
    spark, make = lakehouse
    return spark, *make("capture.photographs=24", "capture.size=64")


def test_two_ingests_at_once_take_each_photograph_once(place, capsys):
    spark, cfg, places = place
    capture.land(cfg, places)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: stream.ingest(spark, cfg, places), range(2))
    assert sorted((first.new, second.new)) == [0, 24] and {first.images, second.images} == {24}
    assert "another ingest on this lakehouse is running (" in capsys.readouterr().out


def test_table_lease_admits_one_driver_at_a_time(place, capsys):
    spark, _, places = place
    order, both = [], threading.Barrier(2)

    def work(name):
        both.wait()
        with lease.by_table(spark, places, "ingest", poll_s=0.1) as check:
            check()
            order.append(f"{name} begins")
            time.sleep(0.5)
            order.append(f"{name} ends")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, "ab"))
    assert order in (["a begins", "a ends", "b begins", "b ends"], ["b begins", "b ends", "a begins", "a ends"])
    assert "waiting for it" in capsys.readouterr().out


def test_lease_is_renewed_and_given_back(place):
    spark, _, places = place

    def until():
        return spark.table(places.table("leases")).collect()[0]["until"]

    with lease.by_table(spark, places, "ingest", renew_s=0.1) as check:
        first, patience = until(), time.monotonic() + 60
        while until() == first:
            assert time.monotonic() < patience, "the lease was never renewed"
        check()
        assert lease._take(spark, places.table("leases"), "ingest", "another", lease.EXPIRES) != "another"
    assert lease._take(spark, places.table("leases"), "ingest", "another", lease.EXPIRES) == "another"


def test_merge_checks_again_that_the_lease_is_free(place):
    spark, _, places = place
    table = places.table("leases")
    with lease.by_table(spark, places, "ingest") as check:
        holder = spark.table(table).collect()[0]["holder"]
        assert lease._merge(spark, table, "ingest", "another", lease.EXPIRES) == holder
        commits = spark.sql(f"DESCRIBE HISTORY {table}").count()
        assert lease._take(spark, table, "ingest", "another", lease.EXPIRES) == holder
        assert spark.sql(f"DESCRIBE HISTORY {table}").count() == commits, (
            "an attempt must not commit: the commit could conflict with the holder's"
        )
        check()


def test_lease_of_a_dead_holder_expires(place, capsys):
    spark, _, places = place
    with lease.by_table(spark, places, "ingest"):
        pass
    assert lease._take(spark, places.table("leases"), "ingest", "killed meanwhile", lease.EXPIRES) == "killed meanwhile"

    def work():
        with lease.by_table(spark, places, "ingest", poll_s=0.1):
            return "held"

    with ThreadPoolExecutor(1) as pool:
        waiting, printed = pool.submit(work), ""
        while "killed meanwhile" not in printed:
            printed += capsys.readouterr().out
            assert not waiting.done()
            time.sleep(0.05)
        with lease.by_table(spark, places, "score"):
            pass  # leases of different names are independent
        assert not waiting.done()
        spark.sql(
            f"UPDATE {places.table('leases')} SET until = current_timestamp() - INTERVAL 1 SECOND WHERE name = 'ingest'"
        )
        assert waiting.result(60) == "held"


def test_holder_without_renewal_stops_writing(place):
    spark, _, places = place
    with lease.by_table(spark, places, "ingest", expires=timedelta(seconds=1), renew_s=3600) as check:
        time.sleep(1.1)
        with pytest.raises(lease.Lost, match="the next run takes up"):
            check()


def test_ingest_checks_its_lease_before_it_writes(place, monkeypatch):
    """A run that has lost its lease leaves the photographs to the new holder."""
    from contextlib import contextmanager

    spark, cfg, places = place

    @contextmanager
    def lost(*_):
        def check():
            raise lease.Lost("taken over")

        yield check

    capture.land(cfg, places)
    with monkeypatch.context() as patch:
        patch.setattr(lease, "held", lost)
        with pytest.raises(Exception, match="taken over"):
            stream.ingest(spark, cfg, places)
    assert spark.table(places.table("images")).count() == 0
    assert stream.ingest(spark, cfg, places).images == 24


@pytest.mark.parametrize("waiting", [1, 5])
def test_lock_file_is_gone_after_the_last_holder(tmp_path, monkeypatch, waiting):
    """One thread holds the lock at a time, and no file stays behind."""
    monkeypatch.setenv("LAKEVISION_LOCKS", str(tmp_path))
    places = type("Places", (), {"root": str(tmp_path / "lake")})()
    holders, most, files = [], [], []

    def work(_):
        for _ in range(5):
            with lease.by_lock(places, "ingest"):
                holders.append(1)
                most.append(len(holders))
                files.append(len(list(tmp_path.glob("*.lock"))))
                time.sleep(0.002)
                holders.pop()

    with ThreadPoolExecutor(waiting) as pool:
        list(pool.map(work, range(waiting)))
    assert len(most) == 5 * waiting and set(most) == {1}
    assert set(files) == {1} and list(tmp_path.glob("*.lock")) == []
