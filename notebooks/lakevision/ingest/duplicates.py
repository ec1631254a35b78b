"""Finds photographs that came before: the same bytes, or nearly the same picture by perceptual hash.

The driver keeps 16 bytes and a path for each first copy: 100 MB for a million photographs. A new photograph is compared
with first copies only, never with copies, so each frame in a fixed camera's thousand frames of one scene costs one
comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lakevision.ingest.quality import NEAR_BITS

HASH_BITS = 63
BANDS = NEAR_BITS + 1  # two hashes that differ in NEAR_BITS bits agree in at least one band (pigeonhole principle)
BRIGHTNESS = 0.1  # the hash ignores the mean brightness, but day and night of one scene are not near copies


class Seen:
    """The photographs in the table: paths, digests (8 bytes of SHA-256), hashes and brightness.

    A class, because look() adds each photograph and must keep the bands up to date.
    """

    def __init__(
        self,
        paths: Sequence[str] = (),
        digests: Sequence[str] = (),
        hashes: Sequence[int] = (),
        brightness: Sequence[float] = (),
        leads: Sequence[bool] = (),
    ) -> None:
        """Five sequences of equal length.

        digests: first 16 hex digits of SHA-256; hashes: perceptual hashes; brightness: 0..1; leads: False for a near
        copy of an earlier photograph.
        """
        is_lead = np.asarray(leads, bool)
        self.first = dict(zip((int(digest, 16) for digest in digests), paths, strict=True))
        self.paths = [path for path, lead in zip(paths, is_lead, strict=True) if lead]
        self.brightness = list(np.asarray(brightness, float)[is_lead])
        self.old = np.asarray(hashes, np.int64)[is_lead]
        self.order = [np.argsort(band, kind="stable") for band in _bands(self.old)]
        self.sorted = [band[order] for band, order in zip(_bands(self.old), self.order, strict=True)]
        self.new: list[int] = []
        self.recent: list[dict[int, list[int]]] = [{} for _ in range(BANDS)]

    def look(self, path: str, digest: str, phash: int, brightness: float) -> tuple[str | None, str | None, int | None]:
        """Compares a photograph with the earlier ones, and adds the photograph.

        digest: SHA-256 in hex; brightness: 0..1. Returns (path of the first photograph with the same bytes, path of the
        most similar earlier photograph within NEAR_BITS, number of bits that differ), each None if there is none.
        """
        same = self.first.setdefault(int(digest[:16], 16), path)
        if same != path:
            return same, None, None
        nearest, bits = self._nearest(phash, brightness)
        if nearest is None:
            index = len(self.paths)
            self.paths.append(path)
            self.brightness.append(brightness)
            self.new.append(phash)
            for known, band in zip(self.recent, _bands(np.array([phash], np.int64)), strict=True):
                known.setdefault(int(band[0]), []).append(index)
        return None, nearest, bits

    def _nearest(self, phash: int, brightness: float) -> tuple[str | None, int | None]:
        candidates: set[int] = set()
        bands = _bands(np.array([phash], np.int64))
        for band, ordered, order, known in zip(bands, self.sorted, self.order, self.recent, strict=True):
            start, stop = np.searchsorted(ordered, band[0], "left"), np.searchsorted(ordered, band[0], "right")
            candidates.update(order[start:stop].tolist(), known.get(int(band[0]), ()))
        best = (NEAR_BITS + 1, 0)
        for index in candidates:
            other = int(self.old[index]) if index < len(self.old) else self.new[index - len(self.old)]
            if abs(self.brightness[index] - brightness) <= BRIGHTNESS:
                best = min(best, ((other ^ phash).bit_count(), index))
        return (None, None) if best[0] > NEAR_BITS else (self.paths[best[1]], best[0])


def _bands(hashes: np.ndarray) -> list[np.ndarray]:
    """The BANDS parts of each hash: a list of int64 arrays (n,)."""
    width = -(-HASH_BITS // BANDS)
    return [hashes >> (width * band) & ((1 << width) - 1) for band in range(BANDS)]
