"""Which photographs have been seen before: the same bytes, or nearly the same picture (perceptual hashes that differ in a few bits).

The driver keeps 16 bytes and a path for each first copy: 100 MB for a million photographs. Near copies are looked for among the first ones only,
never among copies, so that a fixed camera's thousand frames of one scene cost one comparison each.
"""

import numpy as np

from lakevision.ingest.quality import NEAR_BITS

HASH_BITS = 63
BANDS = NEAR_BITS + 1  # two hashes that differ in NEAR_BITS bits agree in one of this many bands (pigeonhole principle)
BRIGHTNESS = 0.1  # the hash leaves the mean brightness out: day and night of one scene are no near copies


class Seen:
    """Photographs that are in the table: paths, digests (8 bytes of SHA-256), hashes, brightness; grows as more come in.

    A class, since each photograph is compared with those before it, and the bands must follow.
    """

    def __init__(self, paths=(), digests=(), hashes=(), brightness=(), leads=()):
        """Equally long sequences: path, first 16 hex digits of SHA-256, perceptual hash, brightness, whether it is no near copy itself."""
        leads = np.asarray(leads, bool)
        self.first = dict(zip((int(digest, 16) for digest in digests), paths))
        self.paths = [path for path, lead in zip(paths, leads) if lead]
        self.brightness = list(np.asarray(brightness, float)[leads])
        self.old = np.asarray(hashes, np.int64)[leads]
        self.order = [np.argsort(band, kind="stable") for band in _bands(self.old)]
        self.sorted = [band[order] for band, order in zip(_bands(self.old), self.order)]
        self.new, self.recent = [], [{} for _ in range(BANDS)]

    def look(self, path, digest, phash, brightness):
        """(path of the first copy of the same bytes or None, path of the nearest earlier picture within NEAR_BITS or None, bits that differ or None).

        digest: hex; phash: int. Remembers the photograph for the next call.
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
            for known, band in zip(self.recent, _bands(np.array([phash], np.int64))):
                known.setdefault(int(band[0]), []).append(index)
        return None, nearest, bits

    def _nearest(self, phash, brightness):
        candidates = set()
        for band, ordered, order, known in zip(
            _bands(np.array([phash], np.int64)), self.sorted, self.order, self.recent
        ):
            start, stop = np.searchsorted(ordered, band[0], "left"), np.searchsorted(ordered, band[0], "right")
            candidates.update(order[start:stop].tolist(), known.get(int(band[0]), ()))
        best = (NEAR_BITS + 1, 0)
        for index in candidates:
            other = int(self.old[index]) if index < len(self.old) else self.new[index - len(self.old)]
            if abs(self.brightness[index] - brightness) <= BRIGHTNESS:
                best = min(best, ((other ^ phash).bit_count(), index))
        return (None, None) if best[0] > NEAR_BITS else (self.paths[best[1]], best[0])


def _bands(hashes):
    """The BANDS parts of each hash: list of int64 arrays (n,)."""
    width = -(-HASH_BITS // BANDS)
    return [hashes >> (width * band) & ((1 << width) - 1) for band in range(BANDS)]
