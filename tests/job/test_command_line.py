"""run.py's command line: commands, their options, and the old flags."""

import pytest

from lakevision.job import command_line


def refused(capsys, *words):
    """The message with which a command line is refused with status 2."""
    with pytest.raises(SystemExit) as ended:
        command_line.parse(list(words))
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "words, command, options",
    [
        pytest.param([], "run", {"images": None, "target": "local", "job": "tour", "set": []}, id="nothing"),
        pytest.param(["--images", "photos"], "run", {"images": "photos"}, id="images alone"),
        pytest.param(["run", "--only", "02_ingest"], "run", {"only": "02_ingest"}, id="run"),
        pytest.param(["serve"], "serve", {"version": "champion"}, id="serve the champion"),
        pytest.param(
            ["serve", "3", "--set", "serve.port=0"], "serve", {"version": "3", "set": ["serve.port=0"]}, id="serve"
        ),
        pytest.param(["promote", "why"], "promote", {"action": "why", "version": ""}, id="why"),
        pytest.param(["promote", "rollback", "--because", "x"], "promote", {"action": "rollback"}, id="rollback"),
        pytest.param(["repeat", "abc", "--set", "storage.root=x"], "repeat", {"run_id": "abc"}, id="repeat"),
    ],
)
def test_command_and_its_options_are_read(words, command, options):
    given = command_line.parse(words)
    assert given.command == command
    assert {name: getattr(given, name) for name in options} == options


@pytest.mark.parametrize(
    "old, new",
    [
        (["--serve"], ["serve", "champion"]),
        (["--serve", "2", "--set", "serve.port=0"], ["serve", "2", "--set", "serve.port=0"]),
        (["--promote", "why", "--images", "photos"], ["promote", "why", "--images", "photos"]),
        (["--promote", "promote 3 --because 'a try'"], ["promote", "promote", "3", "--because", "a try"]),
        (["--promote", "rollback 2 --who A --because b"], ["promote", "rollback", "2", "--who", "A", "--because", "b"]),
        (["--target", "dev", "--repeat", "abc"], ["repeat", "abc", "--target", "dev"]),
    ],
    ids=["serve", "serve a version", "why", "promote", "rollback", "repeat"],
)
def test_old_flag_equals_the_command_and_prints_a_hint(capsys, old, new):
    assert command_line.parse(old) == command_line.parse(new)
    hint = capsys.readouterr().err
    assert hint.count("\n") == 1 and f"the new form is: bash notebooks/run.sh {new[0]}" in hint


def test_commands_print_no_hint(capsys):
    command_line.parse(["serve"])
    command_line.parse(["--only", "02_ingest"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "words, message",
    [
        pytest.param(["--serve", "--only", "02_ingest"], "--serve goes with --images, --target", id="old serve, only"),
        pytest.param(["--promote", "why", "--fresh"], "--promote goes with --images", id="old promote, fresh"),
        pytest.param(["--repeat", "a", "--serve"], "--serve goes with --images", id="two old flags"),
        pytest.param(["serve", "--only", "02_ingest"], "unrecognized arguments: --only", id="serve, only"),
        pytest.param(["promote", "why", "--fresh"], "unrecognized arguments: --fresh", id="promote, fresh"),
        pytest.param(
            ["repeat", "a", "--set", "training.epochs=3"], "all settings from the record", id="repeat, setting"
        ),
        pytest.param(["--repeat", "a", "--set", "training.epochs=3"], "all settings from the record", id="old repeat"),
        pytest.param(["repeat"], "required: RUN_ID", id="repeat what"),
        pytest.param(["promote"], "required: ACTION", id="promote what"),
        pytest.param(["--images", "x", "serve"], "put the command first: bash notebooks/run.sh serve", id="order"),
        pytest.param(["sevre"], "unrecognized arguments: sevre", id="misspelt"),
    ],
)
def test_wrong_command_line_is_refused(capsys, words, message):
    assert message in refused(capsys, *words)


@pytest.mark.parametrize(
    "command, own, foreign",
    [
        ("run", "--only", "--because"),
        ("serve", "VERSION", "--only"),
        ("promote", "--because", "--fresh"),
        ("repeat", "RUN_ID", "--job"),
    ],
)
def test_help_of_a_command_shows_only_its_options(capsys, command, own, foreign):
    with pytest.raises(SystemExit) as ended:
        command_line.parse([command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0 and own in text and foreign not in text
    assert all(option in text for option in ("--images", "--target", "--set"))


@pytest.mark.parametrize(
    "words, expected",
    [
        (["why"], ["why"]),
        (["3", "--because", "a try"], ["promote", "3", "--because", "a try"]),
        (["promote", "3", "--who", "A", "--because", "b"], ["promote", "3", "--who", "A", "--because", "b"]),
        (["rollback", "2", "--because", "b"], ["rollback", "2", "--because", "b"]),
    ],
    ids=["why", "bare version", "promote", "rollback"],
)
def test_promotion_words_are_those_of_the_release_cli(words, expected):
    assert command_line.promotion_words(command_line.parse(["promote", *words])) == expected
