"""Models that are damaged, wrong, slow or deadly, disks that are full, lines that break: after each, the last good model is scoring.

Version 1 is good and in use; version 2 is what the case makes of it; version 3 is good again, and must be taken.
"""

import json
import os
import random
import signal
import subprocess
import time

import pytest

import bundles
import harness
from harness import SOAK, until
from test_score import images, lines, ready, shots

HTML = b"<!DOCTYPE html><html><body>Please sign in to the hotel's Wi-Fi</body></html>"


def used(agent):
    """Version that scores now, by what it says about two frames; the frames are scored and their labels right."""
    before = len(lines(agent))
    shots(agent, 30, 220)
    agent.run("score", "--once")
    got = lines(agent)[before:]
    assert len(got) == 2 and not any(line["error"] for line in got)
    version = {line["version"] for line in got}
    assert len(version) == 1
    return version.pop(), [line["label"] for line in got]


def sync_until_settled(agent, times=4, env=None):
    """Runs sync as often as it would until it gives up; what was said."""
    return "".join(done.stdout + done.stderr for done in (agent.run("sync", check=False, env=env) for _ in range(times)))


def rewrite(folder, change):
    """Changes manifest.json by a function and points champion at it again: a bundle that was made so."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    bundles.write_manifest(folder, manifest)
    bundles.point(folder.parents[1], folder.name)


def file_of(variant, data, folder):
    """Puts other bytes in a variant's place, rightly described."""
    (folder / f"{variant}.tflite").write_bytes(data)
    rewrite(folder, lambda manifest: manifest["variants"][variant].update(bundles.described(data)))


def flipped(path, bit=1000):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << bit % 8
    path.write_bytes(data)


def scrambled(folder):
    data = bytearray((folder / "float32.tflite").read_bytes())
    rng = random.Random(5)
    for _ in range(60):
        data[rng.randrange(8, len(data))] = rng.randrange(256)
    file_of("float32", bytes(data), folder)


DAMAGED = {  # what came is not what the manifest says: tried again, given up after model.attempts
    "bit flip": lambda folder: flipped(folder / "float32.tflite"),
    "bit flip in a photograph": lambda folder: flipped(folder / "golden" / "2.jpg"),
    "HTML instead of a model": lambda folder: (folder / "float32.tflite").write_bytes(HTML * 100),
    "HTML instead of a manifest": lambda folder: (folder / "manifest.json").write_bytes(HTML),
    "manifest cut": lambda folder: os.truncate(folder / "manifest.json", 400),
    "model too long": lambda folder: (folder / "float32.tflite").write_bytes((folder / "float32.tflite").read_bytes() + b"more"),
}
WAITING = {  # looks like a line that broke: tried again for ever
    "model cut": lambda folder: os.truncate(folder / "float32.tflite", 700),
    "model empty": lambda folder: os.truncate(folder / "float32.tflite", 0),
    "model missing": lambda folder: (folder / "float32.tflite").unlink(),
    "short HTML instead of a model": lambda folder: (folder / "float32.tflite").write_bytes(HTML),
}
WRONG = {  # whole, and not to be used: never fetched again
    "tensor shape": (lambda folder: file_of("float32", (folder.parents[2] / "shape").read_bytes(), folder), "tensors are"),
    "three classes": (lambda folder: file_of("float32", (folder.parents[2] / "three").read_bytes(), folder), "tensors are"),
    "another transform": (lambda folder: rewrite(folder, lambda m: m.update(transform="decode|rgb|sharpen|resize(32)")), "sharpen"),
    "another schema": (lambda folder: rewrite(folder, lambda m: m.update(schema_version=9)), "schema_version"),
    "golden scores": (lambda folder: rewrite(folder, lambda m: m["golden"][1]["scores"].update(float32=[0.9, 0.1])), "was said at home"),
    "no golden photograph": (lambda folder: rewrite(folder, lambda m: m.update(golden=[])), "no golden"),
    "not LiteRT": (lambda folder: file_of("float32", HTML, folder), "LiteRT"),
    "scrambled LiteRT": (scrambled, "float32"),
    "leads out of its folder": (lambda folder: rewrite(folder, lambda m: m["variants"]["float32"].update(file="../../../escaped.tflite")), "no file of a model"),
    "takes checked.json's place": (lambda folder: rewrite(folder, lambda m: m["variants"]["float32"].update(file="checked.json")), "no file of a model"),
    "too large": (lambda folder: rewrite(folder, lambda m: m["variants"]["float32"].update(bytes=10 ** 12)), "model.max_mb"),
    "no variant": (lambda folder: rewrite(folder, lambda m: m.update(variants={})), "no variant"),
}


@pytest.fixture
def second(scoring, models):
    """Has version 1 in use; a function that publishes version 2 spoilt by spoil(folder), and returns its digest."""
    ready(scoring)
    for kind in ("shape", "three"):
        (scoring.folder / kind).write_bytes((models / f"{kind}-float32.tflite").read_bytes())

    def publish(spoil, kind="good", **more):
        pointer = bundles.publish(models, scoring.place, "2", kind, variants=("float32",), **more)
        spoil(scoring.place / "versions" / "2")
        return json.loads((scoring.place / "champion.json").read_text()).get("manifest_sha256", pointer)

    return publish


def denied(agent):
    path = agent.model / "denied.json"
    return json.loads(path.read_text()) if path.exists() else {}


def third_is_taken(agent):
    bundles.publish(agent.models, agent.place, "3", "other")
    agent.run("sync")
    assert used(agent) == ("3", ["package", "empty"])


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged(scoring, second, case):
    digest = second(DAMAGED[case])
    said = sync_until_settled(scoring, times=2)
    assert not denied(scoring), "an accident on the way is not the model's fault"
    assert used(scoring) == ("1", ["empty", "package"])
    said += sync_until_settled(scoring, times=2)
    assert digest in denied(scoring) and "Traceback" not in said
    assert used(scoring) == ("1", ["empty", "package"])
    assert "nothing new" in scoring.run("sync").stdout + said
    third_is_taken(scoring)


@pytest.mark.parametrize("case", WAITING)
def test_unfinished(scoring, second, case):
    second(WAITING[case])
    said = sync_until_settled(scoring)
    assert "Traceback" not in said and scoring.run("sync", check=False).returncode == 75
    assert used(scoring) == ("1", ["empty", "package"])
    third_is_taken(scoring)


@pytest.mark.parametrize("case", WRONG)
def test_wrong(scoring, second, case):
    spoil, words = WRONG[case]
    digest = second(spoil)
    done = scoring.run("sync", check=False)
    assert done.returncode == 77 and words in done.stderr and "Traceback" not in done.stderr
    assert digest in denied(scoring) and not (scoring.folder / "escaped.tflite").exists()
    assert used(scoring) == ("1", ["empty", "package"])
    assert "denied on this device" in scoring.run("sync").stdout and "nothing new" in scoring.run("sync").stdout
    assert "float32.tflite" not in os.listdir(scoring.model / "b"), "it is not fetched again"
    third_is_taken(scoring)


def test_too_slow_for_this_device(scoring, second):
    scoring.configure(model={"budget_ms": 8.0})
    second(lambda folder: None, "slow")
    done = scoring.run("sync", check=False)
    assert done.returncode == 77 and "model.budget_ms is 8" in done.stderr
    assert used(scoring) == ("1", ["empty", "package"])


DEADLY = """
import os, sys, time
if "device.golden" in getattr(sys, "orig_argv", ()):
    import json
    folder = sys.orig_argv[sys.orig_argv.index("device.golden") + 1]
    if json.load(open(os.path.join(folder, "manifest.json")))["version"] == "2":
        {deed}
"""


@pytest.mark.parametrize("deed, words", [("os.kill(os.getpid(), 11)", "status -11"), ("time.sleep(600)", "no answer within"), ("os._exit(0)", "its process said")],
                         ids=["segmentation fault", "hangs", "ends without a word"])
def test_a_model_that_kills_its_process(scoring, second, deed, words):
    """In LiteRT's place: the process that tries the golden photographs dies of the model, and nobody else does."""
    (scoring.folder / "site").mkdir()
    (scoring.folder / "site" / "sitecustomize.py").write_text(DEADLY.format(deed=deed))
    scoring.configure(model={"check_s": 2.0})
    digest = second(lambda folder: None)
    done = scoring.run("sync", check=False, env={"PYTHONPATH": str(scoring.folder / "site")})
    assert done.returncode == 77 and words in done.stderr and digest in denied(scoring)
    assert used(scoring) == ("1", ["empty", "package"])
    third_is_taken(scoring)


FORBIDDING = """
import os, resource
def forbidden(*_):
    raise PermissionError(1, "Operation not permitted")
os.nice = resource.setrlimit = forbidden
"""


def test_a_model_is_tried_where_systemd_forbids_to_step_back(scoring, models):
    """The unit's SystemCallFilter has no @resources: setrlimit and setpriority fail there, and no model may be denied for that."""
    (scoring.folder / "site").mkdir()
    (scoring.folder / "site" / "sitecustomize.py").write_text(FORBIDDING)
    scoring.run("sync", env={"PYTHONPATH": str(scoring.folder / "site")})
    assert not denied(scoring)
    assert used(scoring) == ("1", ["empty", "package"])


# ---- probation

def test_no_number_on_probation(scoring, second):
    """The golden photographs are dark; a bright one makes it say NaN. That very frame is scored by the last good model."""
    digest = second(lambda folder: None, "nan", golden=(40, 90))
    scoring.run("sync")
    shots(scoring, 30, 60, 250, 30)
    scoring.run("score", "--once")
    got = lines(scoring)
    assert [(line["version"], line["label"]) for line in got] == [("2", "empty"), ("2", "empty"), ("1", "package"), ("1", "empty")]
    assert "no probabilities" in denied(scoring)[digest]["reason"] and not any(line["error"] for line in got)
    assert used(scoring) == ("1", ["empty", "package"])
    third_is_taken(scoring)


def test_too_slow_on_probation(scoring, second):
    """Quick on its golden photographs, slow on what this camera takes."""
    scoring.configure(model={"budget_ms": 12.0, "probation": 8})
    digest = second(lambda folder: None, "other")
    scoring.run("sync")
    folder = scoring.folder / "large"
    folder.mkdir()
    (folder / "0.jpg").write_bytes(bundles.photo(200, (2400, 1600)))
    scoring.configure(camera={"folder": str(folder), "loop": True})
    scoring.run("capture", "--frames", "8")
    scoring.run("score", "--once")
    assert "model.budget_ms is 12" in denied(scoring)[digest]["reason"]
    assert [line["version"] for line in lines(scoring)] == ["2"] * 5 + ["1"] * 3
    third_is_taken(scoring)


def test_death_on_probation(scoring, second):
    """It takes the scorer with it: after model.crashes starts the last good one is back."""
    scoring.configure(model={"crashes": 2})
    digest = second(lambda folder: None, "other")
    scoring.run("sync")
    deadly = ("import os, device.model as m; real = m.invoke\n"
              "def invoke(model, pixels):\n    return os.kill(os.getpid(), 9) if model.version == '2' else real(model, pixels)\nm.invoke = invoke")
    shots(scoring, 30, 220)
    ends = [scoring.run("score", "--once", check=False, driver=deadly).returncode for _ in range(5)]
    assert ends == [-signal.SIGKILL] * 3 + [0, 0]
    assert [(line["version"], line["label"]) for line in lines(scoring)] == [("1", "empty"), ("1", "package")]
    assert "did not live through" in denied(scoring)[digest]["reason"]
    third_is_taken(scoring)


def test_a_first_model_that_fails_leaves_none_and_frames_go_home(scoring, models):
    bundles.publish(models, scoring.place, "1", "nan", variants=("float32",), golden=(40, 90))
    scoring.run("sync")
    shots(scoring, 30, 250, 30)
    scoring.run("score", "--once")
    assert [line["version"] for line in lines(scoring)] == ["1"] and len(images(scoring)) == 3
    third_is_taken(scoring)


def test_one_clean_stop_after_another_is_no_strike(scoring, second):
    scoring.configure(model={"crashes": 1, "probation": 50})
    second(lambda folder: None, "other")
    scoring.run("sync")
    for _ in range(4):
        assert used(scoring) == ("2", ["package", "empty"])
    assert not denied(scoring)


# ---- rot on the card

@pytest.mark.parametrize("rot", ["bit flip", "cut", "gone", "active.json damaged", "manifest cut"])
def test_the_model_in_use_rots(scoring, second, rot):
    """Version 2 took over from 1, and its files go bad on the card: 1 is scoring again, and 2 is fetched anew."""
    second(lambda folder: None, "other")
    scoring.run("sync")
    for _ in range(3):
        assert used(scoring) == ("2", ["package", "empty"])
    record = json.loads((scoring.model / "active.json").read_text())
    assert record["fallback"] == "", "confirmed"
    path = scoring.model / record["slot"] / "float32.tflite"
    if rot == "bit flip":
        flipped(path)
    elif rot == "cut":
        os.truncate(path, 300)
    elif rot == "gone":
        path.unlink()
    elif rot == "manifest cut":
        os.truncate(scoring.model / record["slot"] / "manifest.json", 100)
    else:
        (scoring.model / "active.json").write_bytes(b"\0" * 200)
    if rot == "active.json damaged":  # either slot would do; sync.json still says which one is wanted
        assert used(scoring) == ("2", ["package", "empty"])
        return
    assert used(scoring) == ("1", ["empty", "package"])
    scoring.run("sync")
    assert used(scoring) == ("2", ["package", "empty"])


# ---- disks

@pytest.fixture
def small_disk(tmp_path, request):
    """A function that puts a disk of so many kB of its own at a path."""
    mounted = []

    def mount(path, kilobytes):
        path.mkdir(exist_ok=True)
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)], capture_output=True).returncode:
            pytest.skip("a small disk of its own needs root and the right to mount")
        mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_no_room_for_a_model(scoring, small_disk, models):
    small_disk(scoring.model, 240)
    ready(scoring)
    bundles.publish(models, scoring.place, "2", "slow", variants=("float32",))
    done = scoring.run("sync", check=False)
    assert done.returncode == 75 and "the disk has less" in done.stderr
    assert used(scoring) == ("1", ["empty", "package"])
    third_is_taken(scoring)


def test_the_disk_fills_up_in_the_middle_of_a_model(scoring, models):
    """A write that fails with "file too large", as one with "no space left" does; nothing half is left."""
    ready(scoring)
    bundles.publish(models, scoring.place, "2", "slow", variants=("float32",))
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))"
    done = scoring.run("sync", check=False, driver=limit)
    assert done.returncode == 75 and "the disk" in done.stderr and "Traceback" not in done.stderr
    assert not list((scoring.model / "b").rglob("*.tflite*"))
    assert used(scoring) == ("1", ["empty", "package"])


@pytest.mark.parametrize("policy", ["oldest", "newest", "reject"])
def test_the_spools_disk_is_full(scoring, small_disk, policy):
    """Scoring and acting go on; when there is room again, results go home, each line once."""
    ready(scoring)
    scoring.stop_all()
    for path in sorted(scoring.spool.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    small_disk(scoring.spool, 600)
    scoring.configure(spool={"when_full": policy, "max_mb": 100.0}, feedback={"send": "none"},
                      act={"command": ["sh", "-c", f"echo $LAKEVISION_LABEL >> {scoring.folder}/acted"], "hold_off_s": 0.0})
    shots(scoring, *[30, 220] * 20)
    free = os.statvfs(scoring.spool)
    (scoring.spool / "others").write_bytes(b"x" * (free.f_bavail * free.f_frsize))
    score = scoring.start("score")
    until(lambda: (scoring.folder / "acted").exists(), "it acts though the disk is full")
    until(lambda: "results wait in memory" in scoring.journal("score") or lines_in_spool(scoring), "the full disk was met")
    (scoring.spool / "others").unlink()
    until(lambda: not list((scoring.spool / "unscored").glob("*.jpg")), "all frames are through")
    assert scoring.stop(score) == 0 and "Traceback" not in scoring.journal("score")
    got = lines(scoring)
    assert {line["version"] for line in got} == {"1"} and len(got) == 40


def lines_in_spool(agent):
    return [name for name in agent.waiting() if name.endswith(".jsonl")]


# ---- kill -9

def kill_all(process):
    """Kills a process and all below it, as a power cut would."""
    def below(pid):
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                children = [int(child) for child in file.read().split()]
        except OSError:
            children = []
        return [pid, *(grandchild for child in children for grandchild in below(child))]

    for pid in below(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


KILLS = 200 if SOAK else 10


def test_killed_in_the_middle_of_a_swap(scoring, models):
    """After each kill a model that works is in use, and in the end every frame has one line, one image and none is lost."""
    from device import config, model, pilot
    ready(scoring)
    scoring.configure(capture={"interval_s": 0.03}, model={"crashes": 10 ** 6, "probation": 3, "interval_s": 0.1})
    settings = config.load(scoring.config)
    kinds, rng = {"1": "good"}, random.Random(9)
    dark = bundles.photo(30)
    capture = scoring.start("capture")
    for kill in range(KILLS):
        version = str(kill + 2)
        kinds[version] = "other" if kill % 2 == 0 else "good"
        bundles.publish(models, scoring.place, version, kinds[version], variants=("float32",))
        score = scoring.start("score")
        time.sleep(rng.uniform(0.3, 3.0))
        kill_all(score)
        found = pilot.Pilot(settings, lambda *_: None)
        found.start()
        assert found.model, f"kill {kill}: no model works any more"
        label = model.decide(model.probabilities(found.model, dark), found.model.classes, found.model.threshold)
        assert label == ("empty" if kinds[found.model.version] == "good" else "package")
    assert scoring.stop(capture) == 0
    score = scoring.start("score")
    until(lambda: f"model {KILLS + 1} has passed" in scoring.journal("score") or not list((scoring.spool / "unscored").glob("*.jpg")), "the rest is scored")
    until(lambda: not list((scoring.spool / "unscored").glob("*.jpg")), "the rest is scored")
    assert scoring.stop(score) == 0 and "Traceback" not in scoring.journal("score")
    got = lines(scoring)
    kept = {ack.key for ack in scoring.acks()}
    assert {line["image"] for line in got} == kept == set(images(scoring)) and not any(line["error"] for line in got)
    assert not denied(scoring)
    seen = sorted({int(line["version"]) for line in got})
    print(f"{KILLS} kills: {len(got)} frames, each with one line and one image; versions that scored: {seen}")
    assert len(seen) > 1
