"""Steps that the tests of scoring share: photographs taken, what came home of them, and which model says so.

Where a model changes, version 1 is in use, version 2 is what the case makes of it, version 3 is good again.
"""

import json
import os

import bundles
import harness

HTML = b"<!DOCTYPE html><html><body>Please sign in to the hotel's Wi-Fi</body></html>"


def shots(agent, *greys):
    """Makes the agent's camera replay photographs of these brightnesses, each once, and captures them."""
    folder = agent.folder / f"shots-{len(os.listdir(agent.folder))}"
    folder.mkdir()
    for index, grey in enumerate(greys):
        (folder / f"{index:03d}.jpg").write_bytes(bundles.photo(grey, seed=index))
    agent.configure(camera={"folder": str(folder), "loop": False})
    agent.run("capture")


def lines(agent):
    """All result lines in the landing zone and in the spool, as dicts; each image once."""
    agent.run("upload", "--once")
    found = [
        json.loads(line)
        for key, data in harness.read_folder(agent.folder / "landing").items()
        if key.startswith("_results/")
        for line in data.decode().splitlines()
    ]
    assert len({line["image"] for line in found}) == len(found), "a frame has two lines"
    return sorted(found, key=lambda line: line["image"])


def images(agent):
    """Keys of the photographs in the landing zone."""
    return sorted(key for key in harness.read_folder(agent.folder / "landing") if key.endswith(".jpg"))


def ready(agent, version="1"):
    """Has a model of this version in use and confirmed."""
    agent.run("sync")
    agent.run("score", "--once")
    record = json.loads((agent.model / "active.json").read_text())
    assert record["version"] == version
    return record


def doctor(agent):
    """{check: its line} of what doctor says."""
    return {
        row.split()[1]: row
        for row in agent.run("doctor", check=False).stdout.splitlines()
        if row.startswith(("ok", "FAIL"))
    }


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


def drives_the_camera(agent, scoring, **how):
    """One process takes four frames and scores each. scoring: the same agent with a model; how: given to Agent.run()."""
    ready(scoring)
    agent.configure(score={"camera": True})
    agent.run("score", "--frames", "4", **how)
    got = lines(scoring)
    assert (
        len(got) == 4 and images(scoring) == [line["image"] for line in got] and not any(line["error"] for line in got)
    )


def sync_until_settled(agent, times=4, env=None):
    """Runs sync as often as it would until it gives up; what was said."""
    return "".join(
        done.stdout + done.stderr for done in (agent.run("sync", check=False, env=env) for _ in range(times))
    )


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


def denied(agent):
    path = agent.model / "denied.json"
    return json.loads(path.read_text()) if path.exists() else {}


def third_is_taken(agent):
    bundles.publish(agent.models, agent.place, "3", "other")
    agent.run("sync")
    assert used(agent) == ("3", ["package", "empty"])
