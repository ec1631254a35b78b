"""The order of things in a swap, step by step: what is whole comes last, what is denied stays away, and every step
outlives a power cut.
"""

import json
import os
import re
import signal
import threading
from types import SimpleNamespace

import bundles
import pytest
from steps import denied, used

from device import clock
from device.model import edge_model, slots, sync
from device.score import results
from device.spool import records
from device.spool.entry import describe
from device.spool.spool import Spool


@pytest.fixture
def steps_of(monkeypatch):
    """A list that fills with what is done to files from now on: ("fsync" | "replace" | "rename" | "unlink", name of
    the file).
    """
    done = []

    def name(target):
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
        return re.sub(r"^\.(.+)\.[0-9a-f]{8}\.part$", r"\1.new", os.path.basename(path))

    def watch(call, place):
        real = getattr(os, call)
        monkeypatch.setattr(
            os,
            call,
            lambda *arguments, **more: (done.append((call, name(arguments[place]))), real(*arguments, **more))[1],
        )

    watch("fsync", 0)
    watch("replace", 1)
    watch("unlink", 0)
    return done


def test_durable_record_syncs_file_before_folder(tmp_path, steps_of):
    records.write(tmp_path / "active.json", {"slot": "a"}, durable=True)
    assert steps_of == [("fsync", "active.json.new"), ("replace", "active.json"), ("fsync", tmp_path.name)]


def test_record_is_never_half_written(tmp_path):
    path, ending, torn = tmp_path / "active.json", threading.Event(), []
    records.write(path, {"n": 0})

    def read():
        while not ending.is_set():
            try:
                json.loads(path.read_text())
            except ValueError as error:
                torn.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1500):
        records.write(path, {"n": number, "padding": "x" * (number % 97) * 500})
    ending.set()
    reader.join()
    assert not torn


def test_slot_is_complete_after_all_files_are_synced(scoring, steps_of):
    from device import config

    assert sync.run(config.load(scoring.config)) == 0
    manifest = edge_model.read_manifest(str(scoring.model / "a"))
    files = [os.path.basename(entry["file"]) for entry in [*manifest["variants"].values(), *manifest["golden"]]]
    whole = steps_of.index(("replace", "checked.json"))
    for file in files:
        assert steps_of.index(("fsync", f"{file}.part")) < steps_of.index(("replace", file)) < whole
    last = max(steps_of.index(("replace", file)) for file in files)
    for folder in ("a", "golden", "manifest.json", "checked.json.new"):
        assert ("fsync", folder) in steps_of[last:whole], f"{folder} is not synced before the slot counts as whole"


def test_kill_during_the_check_leaves_a_working_model(scoring, second):
    """The slot is not whole then, and what has come is not fetched again."""
    second(lambda folder: None, "other")
    deadly = "import os, device.model.golden as g\ng.check = lambda *_: os.kill(os.getpid(), 9)"
    assert scoring.run("sync", check=False, driver=deadly).returncode == -signal.SIGKILL
    assert slots.checked(scoring.model, "b") == {} and used(scoring) == ("1", ["empty", "package"])
    (scoring.place / "versions" / "2" / "float32.tflite").unlink()
    scoring.run("sync")
    assert used(scoring) == ("2", ["package", "empty"])


def test_kill_before_the_switch_leaves_a_working_model(scoring, second):
    second(lambda folder: None, "other")
    scoring.run("sync")
    for target in ("slots.filling", "Selector._use", "Selector._remember"):
        owner, _, name = f"device.model.selector.{target}".rpartition(".")
        deadly = f"import os, device.model.selector\n{owner}.{name} = lambda *a, **k: os.kill(os.getpid(), 9)"
        assert scoring.run("score", "--once", check=False, driver=deadly).returncode == -signal.SIGKILL
        assert slots.active(scoring.model)["version"] == "1"
    assert used(scoring) == ("2", ["package", "empty"])


def test_denied_model_in_a_slot_is_not_taken(scoring, second):
    digest = second(lambda folder: None, "other")
    scoring.run("sync")
    assert slots.checked(scoring.model, "b")["digest"] == digest
    slots.deny(scoring.model, digest, "2", "said by the test")
    assert used(scoring) == ("1", ["empty", "package"])
    (scoring.model / "active.json").unlink()
    slots.clear(scoring.model / "a")
    scoring.run("score", "--once")
    assert slots.active(scoring.model) == {}, "not even where there is no other"


def test_probation_protects_the_last_good_model(scoring, second):
    second(lambda folder: None, "other")
    scoring.run("sync")
    assert used(scoring)[0] == "2" and slots.active(scoring.model)["fallback"] == "a"
    bundles.publish(scoring.models, scoring.place, "3", "good")
    assert "on probation: no look" in scoring.run("sync").stdout
    assert slots.checked(scoring.model, "a")["version"] == "1"


def test_probation_resumes_after_a_restart(scoring, second):
    scoring.configure(model={"probation": 50})
    second(lambda folder: None, "other")
    scoring.run("sync")
    for frames in (2, 4, 6):
        assert used(scoring)[0] == "2" and slots.active(scoring.model)["left"] == 50 - frames


def test_two_syncs_never_fill_one_slot(scoring):
    with slots.filling(scoring.model):
        done = scoring.run("sync", check=False)
    assert (
        done.returncode == 75
        and "another sync is under way" in done.stdout
        and not (scoring.model / "a" / "checked.json").exists()
    )
    assert not denied(scoring)


def test_batch_is_durable_before_its_frames_go(tmp_path, steps_of):
    """The journal, its folder, the lines and the image's new place are synced before a frame is deleted that has
    none.
    """
    settings = SimpleNamespace(path=str(tmp_path / "s"), max_mb=1.0, free_mb=0.0, dead_mb=1.0, when_full="reject")
    inbox, outbox = Spool(settings, "inbox", ready="unscored"), Spool(settings, "score", tmp="tmp-score")
    desk, batch = results.Desk(inbox, outbox, print), results.Batch()
    entries = [describe([bytes(50 + sequence)], "d", clock.now(), sequence) for sequence in (1, 2, 3)]
    for entry in entries:
        inbox.put(entry, [bytes(entry.size)])
        batch.add(entry, {"n": entry.sequence}, entry.sequence == 2)
    del steps_of[:]
    desk.start(batch, {})
    assert desk.under_way() == batch.frames.keys()
    assert desk.settle() is None and not desk.under_way()
    desk.close()
    gone = min(steps_of.index(("unlink", entry.name)) for entry in entries if entry.sequence != 2)
    assert steps_of[:3] == [("fsync", "batch.json.new"), ("replace", "batch.json"), ("fsync", "s")]
    lines_safe = next(
        index for index, (call, name) in enumerate(steps_of) if call == "fsync" and name.endswith(".jsonl")
    )
    assert lines_safe < gone and ("fsync", "ready") in steps_of[lines_safe:gone]
    assert sorted(name.rpartition(".")[2] for name in os.listdir(outbox.ready)) == ["jpg", "jsonl"] and not os.listdir(
        inbox.ready
    )
    inbox.close()
    outbox.close()


def test_joined_batches_lose_nothing():
    one = results.Batch(["a", "b"], {"1": True, "2": False}, 5.0)
    both = one.followed_by(results.Batch(["c"], {"3": False}, 9.0))
    assert (both.lines, both.frames, both.began) == (["a", "b", "c"], {"1": True, "2": False, "3": False}, 5.0)
