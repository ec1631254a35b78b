"""python -m device bench: what each variant of the model costs on this device, as measured when it came (or now, with --again)."""

import sys
from pathlib import Path

from device.model import golden, slots
from device.spool import records


def run(settings, again=False):
    """Prints the table of the model in use; returns 0, or 1 where there is none, or none of its variants passes any more."""
    root = Path(settings.model.folder)
    slot = slots.active(root).get("slot") or next((slot for slot in slots.SLOTS if slots.checked(root, slot)), None)
    card = slots.checked(root, slot) if slot else {}
    if not card:
        print(f"no model in {root}: python -m device sync", file=sys.stderr)
        return 1
    if again:
        try:
            card = {"digest": card["digest"], **golden.check(root / slot, settings)}
        except golden.Failed as error:
            print(f"no variant passes on this device any more: {error}", file=sys.stderr)
            return 1
        records.write(root / slot / "checked.json", card, durable=True)
    print(f"model {card['version']}, slot {slot}, measured {card['at']}; one frame: decode, transform, invoke")
    print(f"{'variant':10} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8} {'MB':>6} {'off by':>9} {'tolerance':>9}")
    for variant, figures in card["table"].items():
        if "p50_ms" in figures:
            print(
                f"{variant:10} {figures['p50_ms']:8.2f} {figures['p90_ms']:8.2f} {figures['p99_ms']:8.2f} {figures['memory_mb']:6.0f} "
                f"{figures['largest']:9.2g} {figures['tolerance']:9.2g}  {'in use' if variant == card['variant'] else figures['failed']}"
            )
        else:
            print(f"{variant:10} {figures['failed']}")
    board = card["board"]
    print(
        f"board: {'no temperature to read' if board['temperature_c'] is None else format(board['temperature_c'], '.0f') + ' C'}, "
        f"{'no word about throttling' if board['throttled'] is None else 'throttled ' + board['throttled']}"
    )
    return 0
