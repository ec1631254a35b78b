"""Which version serves, from the command line (with notebooks/ on PYTHONPATH), or by `bash notebooks/run.sh --promote ...`.

    python -m lakevision.promote why                                         # why this version serves
    python -m lakevision.promote list                                        # all decisions
    python -m lakevision.promote promote 3 --who "A. Person" --because "..."   # against the gate it says so for ever
    python -m lakevision.promote rollback --who "A. Person" --because "..."    # to the champion before; or rollback 2
    python -m lakevision.promote settle                                      # finish a decision that was cut short

--config and --set say which lakehouse, as elsewhere. Exit status: 0; 1 where it can't be done; 2 for a wrong command line.
"""

import argparse
import getpass
import os
import shlex
import sys

from lakevision import config, endpoint, ledger, served, tables, tracking, workspace


def main(words=None, cfg=None):
    """Runs one command; returns the exit status. cfg: the Config, where the caller has it."""
    parser = argparse.ArgumentParser(prog="python -m lakevision.promote", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["why", "list", "promote", "rollback", "settle"])
    parser.add_argument("version", nargs="?", default="")
    parser.add_argument("--who", default=getpass.getuser(), help="who decides (default: the user)")
    parser.add_argument("--because", default="", help="why: needed to promote and to roll back")
    parser.add_argument("--config", default="local", help="the overlay in config/ (default: local)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a setting that differs; can be repeated")
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
    for name, value in served.QUICK.items():
        os.environ.setdefault(name, value)
    where = workspace.places(cfg)
    spark = workspace.spark(cfg)
    try:
        ledger.answered(lambda: tracking.start(cfg, where), "nothing was decided")
        tables.create(spark, where)
        if given.action == "list":
            shown = ledger.rows(spark, where, cfg).orderBy("number").select("number", "decided_at", "action", "version", "promoted", "forced", "who", "reason")
            print(shown.toPandas().to_string(index=False))
        elif given.action == "settle":
            print(f"champion: version {ledger.settle(spark, cfg, where) or '(none)'}")
        else:
            if given.action == "promote":
                ledger.promote(spark, cfg, where, given.version, given.who, given.because)
            elif given.action == "rollback":
                ledger.rollback(spark, cfg, where, given.version, given.who, given.because)
            print(ledger.why(spark, cfg, where))
            if given.action != "why":
                endpoint.follow(cfg, ledger.serving(cfg))
    except (ledger.NotPossible, ledger.RegistryDown) as error:
        print(f"promote: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
