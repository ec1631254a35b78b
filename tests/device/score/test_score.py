"""python -m device score as a real process: what it needs, loads, refuses and leaves behind."""

import hashlib
import json
import re
import sys

import harness
import pytest
from harness import ROOT
from steps import images, lines, ready, shots

from device.model import edge_model

FORBIDDEN = ("tensorflow", "pandas", "mlflow", "boto3", "keras", "pyarrow", "pyspark", "yaml", "obstore")
MODULES = [
    path.relative_to(ROOT / "device").as_posix()
    for path in [*sorted((ROOT / "device").glob("score/*.py")), *sorted((ROOT / "device").glob("model/*.py"))]
]


def test_frames_are_scored_and_uploaded(scoring):
    ready(scoring)
    shots(scoring, 30, 220, 60, 200)
    assert scoring.waiting() == [], "captured frames wait in unscored/, where upload does not look"
    scoring.run("score", "--once")
    assert len([name for name in scoring.waiting() if name.endswith(".jpg")]) == 4
    scored = lines(scoring)
    assert [line["label"] for line in scored] == ["empty", "package", "empty", "package"]
    acks = {ack.key: ack for ack in scoring.acks()}
    stored = harness.read_folder(scoring.folder / "landing")
    slot = scoring.model / json.loads((scoring.model / "active.json").read_text())["slot"]
    for line in scored:
        assert acks[line["image"]].sha256 == line["sha256"] == hashlib.sha256(stored[line["image"]]).hexdigest()
        scores = edge_model.probabilities(edge_model.load(str(slot), line["variant"]), stored[line["image"]])
        assert line["scores"] == [round(score, 6) for score in scores]
        assert (line["version"], line["sent"], line["error"], line["device"]) == ("1", "image", "", "porch-7")
        assert line["latency_ms"] > 0 and 0 < line["brightness"] < 1 and line["taken_at"][:16] == line["scored_at"][:16]
    assert images(scoring) == sorted(acks)
    assert not list((scoring.spool / "unscored").iterdir()) and not list((scoring.spool / "dead").iterdir())


def test_no_frame_is_left_behind_when_scoring_is_switched_off(scoring):
    ready(scoring)
    shots(scoring, 30, 220)
    scoring.configure(score={"enabled": False})
    scoring.run("capture")
    scoring.run("upload", "--once")
    assert len(images(scoring)) == 4


def test_score_loads_no_heavy_package_and_stays_below_120_mb(scoring):
    ready(scoring)
    shots(scoring, *range(40, 200, 4))
    watch = (
        "import atexit; atexit.register(lambda: open({!r}, 'w').write('\\n'.join(sys.modules) + '\\n' + "
        "next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))))"
    ).format(str(scoring.folder / "modules"))
    scoring.run("score", "--once", driver=watch)
    *loaded, peak = (scoring.folder / "modules").read_text().strip().splitlines()
    assert not {name.partition(".")[0] for name in loaded} & set(FORBIDDEN)
    megabytes = int(peak.split()[1]) * 1024 / 1e6
    print(f"peak resident memory of score: {megabytes:.0f} MB")
    assert megabytes < 120


@pytest.mark.parametrize("module", [*MODULES, "bench.py"])
def test_source_imports_only_what_a_device_has(module):
    text = (ROOT / "device" / module).read_text()
    known = {"PIL", "device", "numpy", "ai_edge_litert", "obstore", "gpiozero", "__future__", *sys.stdlib_module_names}
    code = re.sub(r'""".*?"""', "", text, flags=re.DOTALL)  # prose may begin a line with "from"
    assert set(re.findall(r"^\s*(?:from|import) ([a-zA-Z_]\w*)", code, re.MULTILINE)) <= known
    assert not re.findall(r"^(?:from|import) (?:numpy|ai_edge_litert|obstore|gpiozero)", code, re.MULTILINE), (
        "packages that are heavy or optional are imported in functions"
    )


def test_score_without_litert_names_the_requirements(scoring):
    done = scoring.run("score", "--once", check=False, driver="sys.modules['ai_edge_litert.interpreter'] = None")
    assert done.returncode == 69 and "requirements-score.txt" in done.stderr and "Traceback" not in done.stderr


def test_score_refuses_to_run_when_switched_off(agent):
    done = agent.run("score", check=False)
    assert done.returncode == 78 and "score.enabled" in done.stderr


def test_camera_without_scoring_is_refused(agent):
    agent.configure(score={"camera": True, "enabled": False})
    done = agent.run("score", check=False)
    assert done.returncode == 78 and "score.camera" in done.stderr


def test_frames_without_camera_is_refused(agent):
    agent.configure(score={"camera": False, "enabled": True})
    done = agent.run("score", "--frames", "3", check=False)
    assert done.returncode == 64 and "score.camera is false" in done.stderr
    assert "--frames" in agent.run("score", "--help").stdout
