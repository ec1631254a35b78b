"""The READMEs: links work, lines fit, and every command that can run here is run or parsed by its own parser."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *(f"{name}/README.md" for name in ("notebooks", "config", "device", "tests"))]
PAGES += [".github/CONTRIBUTING.md", ".github/CHANGELOG.md"]
STARTS = (
    r"(?:bash|\.venv/bin/\S+|PYTHONPATH=\S+|python3?|curl|databricks|sudo|git|cd|mkdir|cat|echo|export|journalctl)\b"
)
# Commands that need a workspace, a Pi, root, a service that is running, or hours.
ELSEWHERE = ("databricks", "sudo", "git", "journalctl", "curl", "export", "cd", "mkdir", "cat", "echo")
PLACEHOLDERS = {"RUN_ID": "0123456789abcdef0123456789abcdef", "VERSION": "3"}


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands() -> list[tuple[str, str]]:
    """(page, command) of each command in a code block or in backticks that begins with one of our programs."""
    found = []
    for page in PAGES:
        joined = re.sub(r"\\\n\s*", "", text(page))
        lines = [
            line.strip() for line in joined.splitlines() if re.match(rf"(?:    | *){STARTS}", line) and line[:1] == " "
        ]
        quoted = [
            " ".join(span.split())
            for span in re.findall(r"`([^`]+)`", joined)
            if re.match(r"(?:bash|\.venv/bin) ?", span)
        ]
        found += [(page, re.split(r"\s{2,}#", line)[0].strip()) for line in [*lines, *quoted]]
    return sorted(set(found))


def run_sh_words(command: str, folder: Path) -> list[str]:
    return [PLACEHOLDERS.get(word, word).replace("FOLDER", str(folder)) for word in shlex.split(command)[2:]]


def kind(command: str) -> str:
    """run.sh, tests, setup, bench, module, venv or elsewhere."""
    words = shlex.split(command)
    words = words[1:] if words[0].startswith("PYTHONPATH=") else words
    if words[0] == "bash":
        return {"notebooks/run.sh": "run.sh", "tests/run.sh": "tests", "config/setup.sh": "setup"}.get(
            words[1], "elsewhere"
        )
    if words[0].startswith(".venv/bin/"):
        return "bench" if len(words) > 1 and words[1].startswith("tests/bench/") else "venv"
    return "elsewhere" if words[0] in (*ELSEWHERE, "python", "python3") else "unknown"


def of_kind(*kinds: str) -> list:
    return [
        pytest.param(command, id=f"{page}: {command[:60]}") for page, command in commands() if kind(command) in kinds
    ]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", text(page)) + re.findall(r"(?m)^\[[^\]]+\]: (\S+)", text(page))
    for link in links:
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        if anchor:
            headings = [
                re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
                for line in target.read_text().splitlines()
                if line.startswith("#")
            ]
            assert anchor in headings, link


@pytest.mark.parametrize("page", PAGES)
def test_lines_fit_and_the_front_page_is_short(page):
    lines = text(page).splitlines()
    assert not [line for line in lines if len(line) > 120]
    assert page != "README.md" or len(lines) <= 120


def test_every_command_is_of_a_known_kind():
    assert len(commands()) > 40
    assert not [command for _, command in commands() if kind(command) == "unknown"]


@pytest.mark.parametrize("command", of_kind("run.sh"))
def test_run_sh_takes_the_command(command, tmp_path):
    """The real parser, the real settings and the real plan; tests/chain runs the chain itself."""
    from lakevision.job import command_line, plan

    (tmp_path / "cats").mkdir()
    given = command_line.parse(run_sh_words(command, tmp_path))
    lake = plan.lakehouse(given.images, given.target, given.set)
    assert given.command != "run" or plan.tasks(given, lake)


@pytest.mark.parametrize("command", of_kind("tests"))
def test_tests_run_sh_takes_the_command(command):
    options = [word for word in shlex.split(command)[2:] if word.startswith("--")]
    assert all(f"{option})" in (ROOT / "tests" / "run.sh").read_text() for option in options)
    assert all((ROOT / word).exists() for word in shlex.split(command)[2:] if word.startswith("tests/"))


@pytest.mark.parametrize("command", of_kind("bench"))
def test_benchmark_exists_and_names_its_ratios(command):
    script = ROOT / shlex.split(command)[1]
    row = next(line for line in text("tests/README.md").splitlines() if script.name in line)
    assert all(ratio.strip() in script.read_text() for ratio in row.split("|")[2].split(","))


@pytest.mark.parametrize("command", of_kind("venv"))
def test_programs_of_the_environment_run(command, tmp_path):
    """Servers only print their help, and tests are only collected; the other programs run as they are."""
    words = shlex.split(command)
    environment = dict(os.environ)
    if words[0].startswith("PYTHONPATH="):
        environment["PYTHONPATH"] = words.pop(0).partition("=")[2]
    program = [sys.executable] if words[0].endswith("/python") else [sys.executable, "-m", Path(words[0]).name]
    rest = words[1:]
    if "&&" in rest or program[-1] in ("pip", "pre-commit"):
        pytest.skip("installs")
    if program[-1] == "mlflow":
        rest = [rest[0], "--help"]
    if "device" in rest:
        pytest.skip("run as a whole below")
    if "pytest" in rest:
        rest += ["--collect-only", "-q"]
    done = subprocess.run([*program, *rest], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]


@pytest.mark.slow
def test_device_page_can_be_followed_without_a_camera(tmp_path):
    """The block that begins with a venv, as it stands, with this environment in place of a new one."""
    block = re.search(r"(?m)^    python3 -m venv(?:.*\n)+?(?=\n)", text("device/README.md"))[0]
    lines = [line[4:] for line in block.splitlines()][1:]
    script = (
        "\n".join(lines).replace(".venv/bin/python", sys.executable).replace("/tmp/landing", str(tmp_path / "landing"))
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "landing").rglob("*.jpg"))) == 5
