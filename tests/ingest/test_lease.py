"""One ingest at a time: the second waits; a lease of a dead holder runs out; one that was taken over stops its holder's writes."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from lakevision.ingest import capture, lease, stream


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


def test_on_a_cluster_a_table_keeps_two_drivers_apart(place, capsys):
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


def test_a_lease_is_renewed_while_its_holder_lives_and_given_back(place):
    spark, _, places = place

    def until():
        return spark.table(places.table("leases")).collect()[0]["until"]

    with lease.by_table(spark, places, "ingest", renew_s=0.1) as check:
        first, patience = until(), time.monotonic() + 60
        while until() == first:
            assert time.monotonic() < patience, "it was never renewed"
        check()
        assert lease._take(spark, places.table("leases"), "ingest", "another", lease.EXPIRES) != "another"
    assert lease._take(spark, places.table("leases"), "ingest", "another", lease.EXPIRES) == "another"


def test_who_saw_it_free_a_moment_too_early_gets_no_lease(place):
    spark, _, places = place
    table = places.table("leases")
    with lease.by_table(spark, places, "ingest") as check:
        holder = spark.table(table).collect()[0]["holder"]
        assert lease._merge(spark, table, "ingest", "another", lease.EXPIRES) == holder
        commits = spark.sql(f"DESCRIBE HISTORY {table}").count()
        assert lease._take(spark, table, "ingest", "another", lease.EXPIRES) == holder
        assert spark.sql(f"DESCRIBE HISTORY {table}").count() == commits, (
            "asking is no commit, which the holder's own would meet"
        )
        check()


def test_a_lease_of_a_dead_holder_runs_out(place, capsys):
    spark, _, places = place
    with lease.by_table(spark, places, "ingest"):
        pass
    assert lease._take(spark, places.table("leases"), "ingest", "killed meanwhile", lease.EXPIRES) == "killed meanwhile"

    def work():
        with lease.by_table(spark, places, "ingest", poll_s=0.1):
            return "held"

    with ThreadPoolExecutor(1) as pool:
        waiting, said = pool.submit(work), ""
        while "killed meanwhile" not in said:
            said += capsys.readouterr().out
            assert not waiting.done()
            time.sleep(0.05)
        with lease.by_table(spark, places, "score"):
            pass  # one name is nothing to another
        assert not waiting.done()
        spark.sql(
            f"UPDATE {places.table('leases')} SET until = current_timestamp() - INTERVAL 1 SECOND WHERE name = 'ingest'"
        )
        assert waiting.result(60) == "held"


def test_a_holder_that_could_not_renew_writes_no_more(place):
    spark, _, places = place
    with lease.by_table(spark, places, "ingest", expires=timedelta(seconds=1), renew_s=3600) as check:
        time.sleep(1.1)
        with pytest.raises(lease.Lost, match="the next run takes up"):
            check()


def test_ingest_asks_before_it_writes(place, monkeypatch):
    """The images of a run whose lease another has are left to that one."""
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
