"""The rules of the code base: sizes, types, docstrings, tests found by name. See .github/CONTRIBUTING.md."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES, BODY, PARAMETERS, IN_A_FOLDER, TEST_NAME = 300, 50, 7, 15, 60
REASON = re.compile(r"#.*\b\d+ (?:lines|parameters|arguments)\b")  # "# 60 lines: ..." above or inside the definition


@cache
def tracked(*patterns: str) -> tuple[Path, ...]:
    """Files of the working tree that git tracks or would track."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(path for name in sorted(set(done.stdout.split())) if (path := ROOT / name).exists())


def code() -> list[Path]:
    """Modules of the library and of the device, and run.py."""
    return [
        path
        for path in tracked("notebooks/**/*.py", "notebooks/*.py", "device/**/*.py", "device/*.py")
        if path.stem[0] != "0"
    ]


def expected_test(module: Path) -> Path:
    """The test file of a module: tests/<package>/test_<module>.py."""
    inside = (
        module.relative_to(ROOT / "notebooks" / "lakevision")
        if "lakevision" in module.parts[-4:]
        else module.relative_to(ROOT)
    )
    return ROOT / "tests" / inside.parent / f"test_{module.stem.strip('_')}.py"


def modules() -> list[Path]:
    return [path for path in code() if path.name not in ("__init__.py", "run.py")]


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_each_module_has_a_test_of_its_name():
    missing = [path for path in modules() if not expected_test(path).exists()]
    assert not missing, f"no test file: {[str(expected_test(path).relative_to(ROOT)) for path in missing]}"


SIZED = [*modules(), *tracked("tests/**/*.py", "tests/*.py")]


@pytest.mark.parametrize("path", SIZED, ids=names(SIZED))
def test_module_and_its_functions_are_short(path):
    lines = path.read_text().splitlines()
    if len(lines) > LINES:
        assert any(REASON.search(line) for line in lines[:40]), f"{len(lines)} lines, and no comment gives a reason"
    for node in functions(path):
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        count = len(arguments) - (bool(arguments) and arguments[0].arg in ("self", "cls"))
        if node.end_lineno - node.lineno + 1 > BODY or count > PARAMETERS:
            near = lines[max(0, node.lineno - 4) : node.end_lineno]
            assert any(REASON.search(line) for line in near), (
                f"{node.name}, line {node.lineno}, is too long, and gives no reason"
            )


@pytest.mark.parametrize("path", modules(), ids=names(modules()))
def test_public_functions_have_type_hints(path):
    tree = ast.parse(path.read_text())
    public = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            public += [method for method in node.body if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in public:
        if node.name.startswith("_"):
            continue
        arguments = [
            argument
            for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            if argument.arg not in ("self", "cls")
        ]
        bare = [argument.arg for argument in arguments if argument.annotation is None]
        assert not bare and node.returns is not None, (
            f"{node.name}, line {node.lineno}: no type for {bare or 'the return value'}"
        )


@pytest.mark.parametrize("path", code(), ids=names(code()))
def test_first_docstring_line_fits(path):
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    assert 0 < len(first) <= 100, f"{len(first)} characters: {first}"


def test_folders_are_small_and_packages_explain_themselves():
    folders = {path.parent for path in modules()}
    for folder in folders - {ROOT / "notebooks", ROOT / "device"}:
        files = [path for path in modules() if path.parent == folder]
        assert len(files) <= IN_A_FOLDER, f"{folder.relative_to(ROOT)} holds {len(files)} modules"
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        assert "import" in docstring and "Start reading" in docstring, (
            f"{folder.relative_to(ROOT)}: say what it may import, and where to start"
        )


def test_names_of_tests_are_short_and_files_too():
    for path in tracked("tests/**/test_*.py"):
        for node in functions(path):
            assert not node.name.startswith("test_") or len(node.name) <= TEST_NAME, f"{path.name}: {node.name}"


def test_atomic_writes_have_one_home():
    """os.replace elsewhere is a second implementation, unless a comment on that line or the one above gives the
    reason.
    """
    for path in modules():
        if path.relative_to(ROOT) == Path("device/files.py"):
            continue
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if "os.replace(" in line:
                assert "#" in line + lines[number - 1], (
                    f"{path.relative_to(ROOT)}:{number + 1}: use device/files.py or give the reason"
                )


def test_only_platform_asks_where_the_code_runs():
    for path in modules():
        if "platform" not in path.parts:
            assert not re.search(r"ON_DATABRICKS|DATABRICKS_RUNTIME_VERSION", path.read_text()), path.relative_to(ROOT)


def test_no_file_holds_a_path_of_one_machine():
    here = re.compile(r"(?<![\w.$/}])/(?:root|work|home/[a-z]+)/")
    for path in tracked("*.py", "*.md", "*.yml", "*.sh", "*.txt"):
        if path != Path(__file__):
            assert not here.search(path.read_text()), path.relative_to(ROOT)
