"""Episodes: which photographs are near copies of one another, by camera, time and looks.

Two frames of one camera belong together where little time lies between them, or a little more and they look the same. A
photograph without a time belongs to whatever looks like it. What belongs together through others belongs together.
"""

import numpy as np
import pandas as pd

LOOK_AGAIN = 3  # frames up to this many gaps apart are joined where they look the same


def hamming(one, other):
    """Number of bits in which 64-bit hashes differ: uint64 arrays that broadcast -> int64 array. (Warren, Hacker's Delight, 2013, fig. 5-2.)"""
    x = np.bitwise_xor(one, other)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return ((x * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)


def hashes(images):
    """The perceptual hashes of images as (uint64 array, bool array of which rows have one). images: DataFrame, with a column phash or without."""
    if "phash" not in images:
        return np.zeros(len(images), np.uint64), np.zeros(len(images), bool)
    known = images["phash"].notna().to_numpy()
    signed = images["phash"].where(known, 0).astype("int64").to_numpy()
    return signed.view(np.uint64), known


def timed(images):
    """Which rows have a capture time of their own: a file's date says when it was copied."""
    return (images["captured_from"] != "file").to_numpy()


def links(images, settings):
    """Pairs of rows that belong together, int array (m, 2) of positions. images: DataFrame of device, captured_at, captured_from and perhaps phash;
    settings: Config.split. The pairs join neighbours only: chains of them make the episodes."""
    looks, known = hashes(images)
    times, dated = images["captured_at"].to_numpy("datetime64[ns]"), timed(images)
    gap = np.timedelta64(round(settings.episode_gap_minutes * 60e9), "ns")
    found = []
    for rows in _by_camera(images, dated):
        rows = rows[np.argsort(times[rows], kind="stable")]
        left, right = rows[:-1], rows[1:]
        pause = times[right] - times[left]
        alike = known[left] & known[right] & (hamming(looks[left], looks[right]) <= settings.near_duplicate_bits)
        joined = (pause <= gap) | (alike & (pause <= LOOK_AGAIN * gap))
        joined &= ~_cuts(times[rows], joined, settings.episode_hours)
        found.append(np.stack([left[joined], right[joined]], 1))
    found.append(near_duplicates(looks, known & ~dated, settings.near_duplicate_bits))
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def _by_camera(images, dated):
    cameras = images["device"].fillna("unknown").to_numpy()
    return [np.flatnonzero(dated & (cameras == camera)) for camera in np.unique(cameras[dated])]


def _cuts(times, joined, hours):
    """Where a chain must end because it has grown too long: a camera that never pauses would be one episode for ever.

    times: datetime64, sorted, of one camera; joined: which neighbours are linked. The cuts lie at fixed hours of the clock, so that
    photographs that come later do not move them. Returns a bool array like joined.
    """
    length = np.timedelta64(round(hours * 3600e9), "ns")
    chain = np.concatenate([[0], np.cumsum(~joined)])
    first, last = (
        pd.Series(times).groupby(chain).transform(how).to_numpy("datetime64[ns]") for how in ("first", "last")
    )
    block = times.astype("int64") // length.astype("int64")
    return joined & ((last - first) > length)[1:] & (block[1:] != block[:-1])


def near_duplicates(looks, known, bits):
    """Pairs of rows whose hashes differ in at most `bits` bits, chained where many are equal: int array (m, 2). looks: uint64 (n,); known: bool (n,),
    which rows take part."""
    rows = np.flatnonzero(known)
    values, first, inverse = np.unique(looks[rows], return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    same = inverse[order][1:] == inverse[order][:-1]
    return rows[np.concatenate([np.stack([order[:-1][same], order[1:][same]], 1), first[_near(values, bits)]])]


def _near(values, bits):
    """Pairs of different hashes at most `bits` bits apart: int array (m, 2) of positions in values, uint64, each once.

    Hashes that differ in k bits agree in at least one of k + 1 bands (Norouzi et al., Fast Exact Search in Hamming Space, 2014): only those that
    share a band are compared.
    """
    found = [np.empty((0, 2), np.int64)]
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in zip(edges[:-1], edges[1:]):
        band = (values >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        for group in pd.Series(range(len(values)), dtype=int).groupby(band).indices.values():
            for place, one in enumerate(group[:-1]):
                near = group[place + 1 :][hamming(values[one], values[group[place + 1 :]]) <= bits]
                found.append(np.stack([np.full(len(near), one), near], 1))
    return np.concatenate(found)


def lookalikes(images, settings, placements):
    """Which sides hold photographs with a time that look like each photograph without one: a list of sets, empty for rows with a time.

    Such links do not make episodes: one undated frame of a fixed camera would join all its days. images as in links(); sides: text (n,), "" for none.
    """
    looks, known = hashes(images)
    dated, found = timed(images), [set() for _ in range(len(images))]
    if not (known & ~dated).any():
        return found
    values, inverse = np.unique(looks[known], return_inverse=True)
    on = [set() for _ in values]
    for value, side, has_time in zip(inverse, np.asarray(placements)[known], dated[known]):
        if has_time and side:
            on[value].add(side)
    met = [set(own) for own in on]
    for one, other in _near(values, settings.near_duplicate_bits):
        met[one] |= on[other]
        met[other] |= on[one]
    for row, value in zip(np.flatnonzero(known), inverse):
        if not dated[row]:
            found[row] = met[value]
    return found


def components(count, pairs):
    """The number of the connected component of each of `count` rows, int array; pairs: int (m, 2) of rows."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def names(rows):
    """The name of each row's episode: camera and time of its first frame; where no frame has a time, the first digest.

    rows: DataFrame of device, captured_at, captured_from, sha256 and component. Returns a Series of text.
    """
    known = rows[timed(rows)].sort_values(["captured_at", "sha256"])
    first = known.drop_duplicates("component").set_index("component")
    by_time = first["device"].fillna("unknown") + " " + first["captured_at"].dt.strftime("%Y-%m-%dT%H:%M:%S")
    by_digest = "image " + rows.groupby("component")["sha256"].min().str[:16]
    return rows["component"].map(by_time).fillna(rows["component"].map(by_digest))
