"""Models that are damaged, wrong or deadly: after each, the last good model is scoring.

Version 1 is good and in use; version 2 is what the case makes of it; version 3 is good again, and must be taken.
"""

import os
import random

import pytest
from steps import HTML, denied, file_of, flipped, rewrite, sync_until_settled, third_is_taken, used


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
    "model too long": lambda folder: (folder / "float32.tflite").write_bytes(
        (folder / "float32.tflite").read_bytes() + b"more"
    ),
}
WAITING = {  # looks like a line that broke: tried again for ever
    "model cut": lambda folder: os.truncate(folder / "float32.tflite", 700),
    "model empty": lambda folder: os.truncate(folder / "float32.tflite", 0),
    "model missing": lambda folder: (folder / "float32.tflite").unlink(),
    "short HTML instead of a model": lambda folder: (folder / "float32.tflite").write_bytes(HTML),
}
WRONG = {  # whole, and not to be used: never fetched again
    "tensor shape": (
        lambda folder: file_of("float32", (folder.parents[2] / "shape").read_bytes(), folder),
        "tensors are",
    ),
    "three classes": (
        lambda folder: file_of("float32", (folder.parents[2] / "three").read_bytes(), folder),
        "tensors are",
    ),
    "another transform": (
        lambda folder: rewrite(folder, lambda m: m.update(transform="decode|rgb|sharpen|resize(32)")),
        "sharpen",
    ),
    "another schema": (lambda folder: rewrite(folder, lambda m: m.update(schema_version=9)), "schema_version"),
    "golden scores": (
        lambda folder: rewrite(folder, lambda m: m["golden"][1]["scores"].update(float32=[0.9, 0.1])),
        "at home, and the tolerance is",
    ),
    "no golden photograph": (lambda folder: rewrite(folder, lambda m: m.update(golden=[])), "no golden"),
    "not LiteRT": (lambda folder: file_of("float32", HTML, folder), "LiteRT"),
    "scrambled LiteRT": (scrambled, "float32"),
    "leads out of its folder": (
        lambda folder: rewrite(folder, lambda m: m["variants"]["float32"].update(file="../../../escaped.tflite")),
        "not a file of a model",
    ),
    "takes checked.json's place": (
        lambda folder: rewrite(folder, lambda m: m["variants"]["float32"].update(file="checked.json")),
        "not a file of a model",
    ),
    "too large": (
        lambda folder: rewrite(folder, lambda m: m["variants"]["float32"].update(bytes=10**12)),
        "model.max_mb",
    ),
    "no variant": (lambda folder: rewrite(folder, lambda m: m.update(variants={})), "no variant"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_download_is_retried_then_denied(scoring, second, case):
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
def test_unfinished_publication_is_retried(scoring, second, case):
    second(WAITING[case])
    said = sync_until_settled(scoring)
    assert "Traceback" not in said and scoring.run("sync", check=False).returncode == 75
    assert used(scoring) == ("1", ["empty", "package"])
    third_is_taken(scoring)


@pytest.mark.parametrize("case", WRONG)
def test_wrong_bundle_is_denied(scoring, second, case):
    spoil, words = WRONG[case]
    digest = second(spoil)
    done = scoring.run("sync", check=False)
    assert done.returncode == 77 and words in done.stderr and "Traceback" not in done.stderr
    assert digest in denied(scoring) and not (scoring.folder / "escaped.tflite").exists()
    assert used(scoring) == ("1", ["empty", "package"])
    assert "denied on this device" in scoring.run("sync").stdout and "nothing new" in scoring.run("sync").stdout
    assert "float32.tflite" not in os.listdir(scoring.model / "b"), "it is not fetched again"
    third_is_taken(scoring)


DEADLY = """
import os, sys, time
if "device.model.golden" in getattr(sys, "orig_argv", ()):
    import json
    folder = sys.orig_argv[sys.orig_argv.index("device.model.golden") + 1]
    if json.load(open(os.path.join(folder, "manifest.json")))["version"] == "2":
        {deed}
"""


@pytest.mark.parametrize(
    "deed, words",
    [
        ("os.kill(os.getpid(), 11)", "status -11"),
        ("time.sleep(600)", "no answer within"),
        ("os._exit(0)", "its process printed"),
    ],
    ids=["segmentation fault", "hangs", "ends without a word"],
)
def test_model_that_kills_its_process_is_denied(scoring, second, deed, words):
    """In LiteRT's place: the process that tries the golden photographs dies of the model, and nobody else does."""
    (scoring.folder / "site").mkdir()
    (scoring.folder / "site" / "sitecustomize.py").write_text(DEADLY.format(deed=deed))
    scoring.configure(model={"check_s": 2.0, "slow_rounds": 1})
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


def test_trial_works_without_rights_to_step_back(scoring, models):
    """The unit's SystemCallFilter has no @resources: setrlimit and setpriority fail there, and no model may be
    denied for that.
    """
    (scoring.folder / "site").mkdir()
    (scoring.folder / "site" / "sitecustomize.py").write_text(FORBIDDING)
    scoring.run("sync", env={"PYTHONPATH": str(scoring.folder / "site")})
    assert not denied(scoring)
    assert used(scoring) == ("1", ["empty", "package"])
