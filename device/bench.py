"""python -m device bench: the cost of each variant of the model on this device.

The figures were measured when the model arrived; --again measures now.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.model import golden, slots
from device.spool import records

if TYPE_CHECKING:
    from device.config import Settings


def run(settings: Settings, again: bool = False) -> int:
    """Prints the table of the model in use. Returns 1 if there is no model or if no variant passes any more, else 0."""
    root = Path(settings.model.folder)
    slot = slots.active(root).get("slot") or next((slot for slot in slots.SLOTS if slots.checked(root, slot)), None)
    card = slots.checked(root, slot) if slot else {}
    if not slot or not card:
        print(f"no model in {root}: python -m device sync", file=sys.stderr)
        return 1
    if again:
        try:
            card = {"digest": card["digest"], **golden.check(root / slot, settings)}
        except golden.Failed as error:
            print(f"no variant passes on this device any more: {error}", file=sys.stderr)
            return 1
        records.write(root / slot / "checked.json", card, durable=True)
    _show(slot, card)
    return 0


def _show(slot: str, card: dict[str, Any]) -> None:
    print(f"model {card['version']}, slot {slot}, measured {card['at']}; one frame: decode, transform, invoke")
    print(f"{'variant':10} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8} {'MB':>6} {'off by':>9} {'tolerance':>9}")
    for variant, row in card["table"].items():
        if "p50_ms" in row:
            print(
                f"{variant:10} {row['p50_ms']:8.2f} {row['p90_ms']:8.2f} {row['p99_ms']:8.2f} "
                f"{row['memory_mb']:6.0f} {row['largest']:9.2g} {row['tolerance']:9.2g}  "
                f"{'in use' if variant == card['variant'] else row['failed']}"
            )
        else:
            print(f"{variant:10} {row['failed']}")
    degrees, throttled = card["board"]["temperature_c"], card["board"]["throttled"]
    print(
        f"board: {'no temperature to read' if degrees is None else format(degrees, '.0f') + ' C'}, "
        f"{'no word about throttling' if throttled is None else 'throttled ' + throttled}"
    )
