"""The command line of notebooks/run.py: run, serve, promote and repeat, and the old flags."""

import argparse
import shlex
import sys

PROGRAM = "bash notebooks/run.sh"
COMMANDS = ("run", "serve", "promote", "repeat")
RECORDED = ("storage.", "spark.")  # only these settings of a repeat do not come from the record


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line. words: the arguments, by default those of this process.

    The result has `command` (run, serve, promote or repeat) and the options of that command. The default is `run`. The
    old flags --serve, --promote and --repeat give the same result as the commands, and print the new form to stderr.
    Exits with status 2 and a message if the command line is wrong.
    """
    words = list(sys.argv[1:] if words is None else words)
    parsers = _parsers()
    if words and words[0] in COMMANDS:
        command, words = words[0], words[1:]
        given = parsers[command].parse_args(words, argparse.Namespace(command=command))
    elif words and words[0] in ("-h", "--help"):
        given = parsers[""].parse_args(words)
    else:
        given = _with_old_flags(parsers["run"], words)
    if given.command == "repeat" and any(not setting.startswith(RECORDED) for setting in given.set):
        parsers["repeat"].error("repeat takes all settings from the record: only storage.* and spark.* can be --set")
    return given


def promotion_words(given: argparse.Namespace) -> list[str]:
    """The arguments of `promote` for lakevision.release.cli. A bare version number means "promote this version"."""
    action = ["promote", given.action] if given.action.isdigit() else [given.action]
    words = [*action, given.version] if given.version else action
    for option, value in (("--who", given.who), ("--because", given.because)):
        words += [option, value] if value else []
    return words


def _parsers() -> dict[str, argparse.ArgumentParser]:
    """{command: its parser}; the parser of all commands, which prints the general help, under ""."""
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Runs the notebooks here, serves a model, decides which version serves, or repeats a training.",
        epilog=f"Without a command: run. Each command has a --help of its own: {PROGRAM} serve --help",
    )
    commands = top.add_subparsers(dest="command", metavar="{" + ",".join(COMMANDS) + "}")
    parsers = {"": top}
    for command, summary in (
        ("run", "the notebooks of a job of databricks.yml, in order (default)"),
        ("serve", "a model version as a REST service, until Ctrl-C"),
        ("promote", "which version serves, and why; promote or roll back by hand"),
        ("repeat", "train again from the MLflow record of a run, and compare"),
    ):
        description = f"{summary[0].upper()}{summary[1:]}."
        parsers[command] = commands.add_parser(command, help=summary, description=description)
        _add_common(parsers[command])
    _add_run(parsers["run"])
    _add_serve(parsers["serve"])
    _add_promote(parsers["promote"])
    _add_repeat(parsers["repeat"])
    return parsers


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help="your photographs: class folders, or files named <...>_<label>.jpg; also s3://, az://, gs://. "
        "Each set of photographs has a lakehouse of its own",
    )
    parser.add_argument(
        "--target",
        default="local",
        help="the overlay in config/: local (default), dev or prod. Files, tables, runs and models are on this machine "
        "with every target",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a setting; can be repeated"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="first", metavar="NOTEBOOK", help="start with this notebook, on the results of earlier ones"
    )
    parser.add_argument("--only", metavar="NOTEBOOK", help="run this notebook alone")
    parser.add_argument("--job", default="tour", help="the job of databricks.yml: tour (default), retrain or score")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="first delete the lakehouse of these photographs; deletes nothing outside .local",
    )
    parser.add_argument(
        "--require-promotion", action="store_true", help="exit with status 1 if no model became champion"
    )


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "version",
        nargs="?",
        default="champion",
        metavar="VERSION",
        help="the version's number or alias (default: champion). Address and limits are settings: --set serve.*",
    )


def _add_promote(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"""Which version serves, and why.

  {PROGRAM} promote why                            why this version serves
  {PROGRAM} promote list                           all decisions
  {PROGRAM} promote 3 --because '...'              make version 3 champion
  {PROGRAM} promote rollback --because '...'       return to the champion before; to version 2: rollback 2
  {PROGRAM} promote settle                         finish a decision that was interrupted"""
    parser.add_argument("action", metavar="ACTION", help="why, list, rollback, settle, or the version to promote")
    parser.add_argument("version", nargs="?", default="", metavar="VERSION", help="the version to return to")
    parser.add_argument("--because", default="", metavar="REASON", help="required to promote and to roll back")
    parser.add_argument("--who", default="", help="who decides (default: the current user)")


def _add_repeat(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Trains again from the MLflow record of a run of 03_train and compares the two. Registers and promotes "
        "nothing. --images, --target and --set storage.* select the lakehouse; the other settings are those recorded."
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="the MLflow run that 03_train calls `final`")


def _with_old_flags(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Parses words without a command: those of `run`, or one of the flags that the commands replaced."""
    parser.add_argument("--serve", nargs="?", const="champion", help=argparse.SUPPRESS)
    parser.add_argument("--promote", help=argparse.SUPPRESS)
    parser.add_argument("--repeat", help=argparse.SUPPRESS)
    given, extra = parser.parse_known_args(words, argparse.Namespace(command="run"))
    if extra:
        misplaced = next((word for word in extra if word in COMMANDS), "")
        hint = f"; put the command first: {PROGRAM} {misplaced} ..." if misplaced else ""
        parser.error(f"unrecognized arguments: {shlex.join(extra)}{hint}")
    flags = [name for name in ("promote", "serve", "repeat") if getattr(given, name)]
    if not flags:
        return given
    if len(flags) > 1 or given.first or given.only or given.fresh or given.require_promotion:
        parser.error(f"--{flags[0]} goes with --images, --target and --set only")
    command, value = flags[0], getattr(given, flags[0])
    new = [command, *(shlex.split(value) if command == "promote" else [value])]
    if given.images:
        new += ["--images", given.images]
    if given.target != "local":
        new += ["--target", given.target]
    for setting in given.set:
        new += ["--set", setting]
    print(f"run.py: --{command} still works; the new form is: {PROGRAM} {shlex.join(new)}", file=sys.stderr)
    return parse(new)
