"""Steps that the scoring tests share: taking photographs, reading the results, checking the model in use.

In tests of a model's change, version 1 is in use, version 2 is the case under test, and version 3 is good again.
"""

import json
import os

import bundles
import harness

HTML = b"<!DOCTYPE html><html><body>Please sign in to the hotel's Wi-Fi</body></html>"


def shots(agent, *greys):
    """Lets the agent's camera replay one photograph of each brightness (0 to 255), and captures them."""
    folder = agent.folder / f"shots-{len(os.listdir(agent.folder))}"
    folder.mkdir()
    for index, grey in enumerate(greys):
        (folder / f"{index:03d}.jpg").write_bytes(bundles.photo(grey, seed=index))
    agent.configure(camera={"folder": str(folder), "loop": False})
    agent.run("capture")


def lines(agent):
    """Uploads, then returns all result lines of the landing zone as dicts, sorted by image. Each image has one line."""
    agent.run("upload", "--once")
    results = [
        json.loads(line)
        for key, data in harness.read_folder(agent.folder / "landing").items()
        if key.startswith("_results/")
        for line in data.decode().splitlines()
    ]
    assert len({line["image"] for line in results}) == len(results), "a frame has two lines"
    return sorted(results, key=lambda line: line["image"])


def images(agent):
    """Keys of the photographs in the landing zone."""
    return sorted(key for key in harness.read_folder(agent.folder / "landing") if key.endswith(".jpg"))


def ready(agent, version="1"):
    """Fetches the model and takes it into use; checks its version. Returns active.json as a dict."""
    agent.run("sync")
    agent.run("score", "--once")
    record = json.loads((agent.model / "active.json").read_text())
    assert record["version"] == version
    return record


def doctor(agent):
    """{name of the check: its line} of doctor's output."""
    return {
        row.split()[1]: row
        for row in agent.run("doctor", check=False).stdout.splitlines()
        if row.startswith(("ok", "FAIL"))
    }


def used(agent):
    """Scores a dark and a bright frame; returns (version of the model that scored them, [their labels])."""
    before = len(lines(agent))
    shots(agent, 30, 220)
    agent.run("score", "--once")
    scored = lines(agent)[before:]
    assert len(scored) == 2 and not any(line["error"] for line in scored)
    version = {line["version"] for line in scored}
    assert len(version) == 1
    return version.pop(), [line["label"] for line in scored]


def drives_the_camera(agent, scoring, **how):
    """One process takes four frames and scores each. scoring: the same agent with a model. how: for Agent.run()."""
    ready(scoring)
    agent.configure(score={"camera": True})
    agent.run("score", "--frames", "4", **how)
    scored = lines(scoring)
    assert len(scored) == 4 and images(scoring) == [line["image"] for line in scored]
    assert not any(line["error"] for line in scored)


def sync_until_settled(agent, times=4, env=None):
    """Runs sync several times, enough for it to give up on a bad model; returns all it printed."""
    return "".join(
        done.stdout + done.stderr for done in (agent.run("sync", check=False, env=env) for _ in range(times))
    )


def rewrite(folder, change):
    """Changes manifest.json with the function `change`, and points champion at the result."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    bundles.write_manifest(folder, manifest)
    bundles.point(folder.parents[1], folder.name)


def file_of(variant, data, folder):
    """Replaces a variant's file; the manifest describes the new bytes correctly."""
    (folder / f"{variant}.tflite").write_bytes(data)
    rewrite(folder, lambda manifest: manifest["variants"][variant].update(bundles.described(data)))


def flipped(path, bit=1000):
    """Flips one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << bit % 8
    path.write_bytes(data)


def denied(agent):
    """denied.json as a dict; {} if no model was denied."""
    path = agent.model / "denied.json"
    return json.loads(path.read_text()) if path.exists() else {}


def third_is_taken(agent):
    """Publishes a good version 3 and checks that it comes into use."""
    bundles.publish(agent.models, agent.place, "3", "other")
    agent.run("sync")
    assert used(agent) == ("3", ["package", "empty"])
