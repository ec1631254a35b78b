"""Which version serves, from the command line; `bash notebooks/run.sh promote ...` calls this, too.

    python -m lakevision.release.cli why                       # why this version serves
    python -m lakevision.release.cli list                      # all decisions
    python -m lakevision.release.cli promote 3 --because "..."   # recorded as forced if the gate objects
    python -m lakevision.release.cli rollback --because "..."    # to the champion before; or rollback 2
    python -m lakevision.release.cli settle                    # finish an interrupted decision

Needs notebooks/ on PYTHONPATH. --who names the person who decides (default: the current user); --config and --set
select the lakehouse, as elsewhere. Exit status: 0; 1 if a command is impossible; 2 for a wrong command line.
"""

import argparse
import getpass
import os
import shlex
import sys

from pyspark.sql import SparkSession

from lakevision.ingest import tables
from lakevision.platform import config, workspace
from lakevision.registry import tracking
from lakevision.release import ledger, promotions
from lakevision.serving import endpoint
from lakevision.serving.rest import loaded_model

PROGRAM = "python -m lakevision.release.cli"


def main(words: list[str] | None = None, cfg: config.Config | None = None, program: str = PROGRAM) -> int:
    """Runs one command and returns the exit status. cfg: the settings, if the caller has loaded them already.

    program: the command's name in messages. Exits with status 2 for a wrong command line.
    """
    given = _parse(words, program)
    try:
        cfg = cfg or config.load(given.config, shlex.split(shlex.join(given.set)))
    except config.ConfigError as error:
        print(f"promote: {error}", file=sys.stderr)
        return 2
    for name, value in loaded_model.QUICK.items():
        os.environ.setdefault(name, value)
    places = workspace.places(cfg)
    spark = workspace.spark(cfg)
    try:
        _run(given, spark, cfg, places)
    except (promotions.NotPossible, promotions.RegistryDown) as error:
        print(f"promote: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(words: list[str] | None, program: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["why", "list", "promote", "rollback", "settle"])
    parser.add_argument("version", nargs="?", default="")
    parser.add_argument("--who", default=getpass.getuser(), help="who decides (default: the current user)")
    parser.add_argument("--because", default="", help="the reason; required to promote and to roll back")
    parser.add_argument("--config", default="local", help="the overlay in config/ (default: local)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a setting; can be repeated"
    )
    given = parser.parse_args(words)
    if given.action in ("promote", "rollback") and not given.because:
        parser.error(f"{given.action} needs --because: the reason stays with the version")
    if given.action == "promote" and not given.version:
        parser.error("promote needs a version")
    return given


def _run(given: argparse.Namespace, spark: SparkSession, cfg: config.Config, places: workspace.Places) -> None:
    """Runs a parsed command. Raises promotions.NotPossible, promotions.RegistryDown."""
    ledger.ask_registry(lambda: tracking.start(cfg, places), "nothing was decided")
    tables.create(spark, places)
    if given.action == "list":
        columns = ("number", "decided_at", "action", "version", "promoted", "forced", "who", "reason")
        decisions = promotions.rows(spark, places, cfg).orderBy("number").select(*columns)
        print(decisions.toPandas().to_string(index=False))
        return
    if given.action == "settle":
        print(f"champion: version {promotions.settle(spark, cfg, places) or '(none)'}")
        return
    if given.action == "promote":
        promotions.promote(spark, cfg, places, given.version, given.who, given.because)
    elif given.action == "rollback":
        promotions.rollback(spark, cfg, places, given.version, given.who, given.because)
    print(promotions.why(spark, cfg, places))
    if given.action != "why":
        endpoint.follow(cfg, promotions.serving(cfg))


if __name__ == "__main__":
    sys.exit(main())
