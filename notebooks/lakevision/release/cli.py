"""Which version serves, from the command line (with notebooks/ on PYTHONPATH), or by `bash notebooks/run.sh --promote ...`.

    python -m lakevision.release.cli why                                         # why this version serves
    python -m lakevision.release.cli list                                        # all decisions
    python -m lakevision.release.cli promote 3 --who "A. Person" --because "..."   # against the gate it says so for ever
    python -m lakevision.release.cli rollback --who "A. Person" --because "..."    # to the champion before; or rollback 2
    python -m lakevision.release.cli settle                                      # finish a decision that was cut short

--config and --set say which lakehouse, as elsewhere. Exit status: 0; 1 where it can't be done; 2 for a wrong command line.
"""

import argparse
import getpass
import os
import shlex
import sys

from lakevision.ingest import tables
from lakevision.platform import config, workspace
from lakevision.registry import tracking
from lakevision.release import promotions
from lakevision.serving import endpoint
from lakevision.serving.rest import loaded_model


def main(words=None, cfg=None):
    """Runs one command; returns the exit status. cfg: the Config, where the caller has it."""
    parser = argparse.ArgumentParser(
        prog="python -m lakevision.release.cli",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["why", "list", "promote", "rollback", "settle"])
    parser.add_argument("version", nargs="?", default="")
    parser.add_argument("--who", default=getpass.getuser(), help="who decides (default: the user)")
    parser.add_argument("--because", default="", help="why: needed to promote and to roll back")
    parser.add_argument("--config", default="local", help="the overlay in config/ (default: local)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="a setting that differs; can be repeated",
    )
    given = parser.parse_args(words)
    if given.action in ("promote", "rollback") and not given.because:
        parser.error(f"{given.action} needs --because: it stays with the version")
    if given.action == "promote" and not given.version:
        parser.error("promote needs a version")
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
        promotions.answered(lambda: tracking.start(cfg, places), "nothing was decided")
        tables.create(spark, places)
        if given.action == "list":
            shown = (
                promotions.rows(spark, places, cfg)
                .orderBy("number")
                .select("number", "decided_at", "action", "version", "promoted", "forced", "who", "reason")
            )
            print(shown.toPandas().to_string(index=False))
        elif given.action == "settle":
            print(f"champion: version {promotions.settle(spark, cfg, places) or '(none)'}")
        else:
            if given.action == "promote":
                promotions.promote(spark, cfg, places, given.version, given.who, given.because)
            elif given.action == "rollback":
                promotions.rollback(spark, cfg, places, given.version, given.who, given.because)
            print(promotions.why(spark, cfg, places))
            if given.action != "why":
                endpoint.follow(cfg, promotions.serving(cfg))
    except (promotions.NotPossible, promotions.RegistryDown) as error:
        print(f"promote: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
