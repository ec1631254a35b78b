"""Episodes: groups of photographs that are near copies of one another, by camera, time and looks.

Two frames of one camera are linked if little time lies between them. If they look the same, somewhat more time may lie
between them. A photograph without a capture time is linked to the photographs without a time that look like it. An
episode is a connected component of these links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from lakevision.platform.config_sections import Split

LOOK_AGAIN = 3  # frames up to this many episode gaps apart are linked if they look the same


def hamming(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Number of bits in which 64-bit hashes differ: uint64 arrays that broadcast -> int64 array.

    Source: Warren, Hacker's Delight, 2013, fig. 5-2.
    """
    x = np.bitwise_xor(one, other)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return ((x * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)


def hashes(images: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The perceptual hashes of n images: uint64 (n,), and bool (n,), which is True for rows with a hash.

    images: may lack the column phash; then no row has a hash.
    """
    if "phash" not in images:
        return np.zeros(len(images), np.uint64), np.zeros(len(images), bool)
    has_hash = images["phash"].notna().to_numpy()
    signed = images["phash"].where(has_hash, 0).astype("int64").to_numpy()
    return signed.view(np.uint64), has_hash


def timed(images: pd.DataFrame) -> np.ndarray:
    """bool (n,): True for rows with a capture time. A file's date does not count: it is the time of the copy."""
    return (images["captured_from"] != "file").to_numpy()


def links(images: pd.DataFrame, settings: Split) -> np.ndarray:
    """Pairs of rows that belong to the same episode: int array (m, 2) of row positions.

    images: DataFrame of device, captured_at, captured_from and perhaps phash. Only neighbours are linked; episodes are
    chains of links.
    """
    phashes, has_hash = hashes(images)
    times, has_time = images["captured_at"].to_numpy("datetime64[ns]"), timed(images)
    gap = np.timedelta64(round(settings.episode_gap_minutes * 60e9), "ns")
    pairs = []
    for rows in _by_camera(images, has_time):
        rows = rows[np.argsort(times[rows], kind="stable")]
        left, right = rows[:-1], rows[1:]
        pause = times[right] - times[left]
        alike = has_hash[left] & has_hash[right]
        alike &= hamming(phashes[left], phashes[right]) <= settings.near_duplicate_bits
        linked = (pause <= gap) | (alike & (pause <= LOOK_AGAIN * gap))
        linked &= ~_cuts(times[rows], linked, settings.episode_hours)
        pairs.append(np.stack([left[linked], right[linked]], 1))
    pairs.append(near_duplicates(phashes, has_hash & ~has_time, settings.near_duplicate_bits))
    return np.concatenate(pairs)


def _by_camera(images: pd.DataFrame, has_time: np.ndarray) -> list[np.ndarray]:
    """Row positions of the images with a capture time, one array for each camera."""
    cameras = images["device"].fillna("unknown").to_numpy()
    return [np.flatnonzero(has_time & (cameras == camera)) for camera in np.unique(cameras[has_time])]


def _cuts(times: np.ndarray, linked: np.ndarray, hours: float) -> np.ndarray:
    """Links at which a chain longer than `hours` is cut.

    Without cuts, a camera that never pauses would be one endless episode.
    times: datetime64 (n,), sorted, of one camera; linked: bool (n - 1,), whether neighbours are linked. Returns bool
    (n - 1,). The cuts lie at fixed hours of the clock, so later photographs do not move them.
    """
    limit = np.timedelta64(round(hours * 3600e9), "ns")
    chain = np.concatenate([[0], np.cumsum(~linked)])
    first, last = (
        pd.Series(times).groupby(chain).transform(how).to_numpy("datetime64[ns]") for how in ("first", "last")
    )
    block = times.astype("int64") // limit.astype("int64")
    return linked & ((last - first) > limit)[1:] & (block[1:] != block[:-1])


def near_duplicates(phashes: np.ndarray, included: np.ndarray, bits: int) -> np.ndarray:
    """Pairs of rows whose hashes differ in at most `bits` bits: int array (m, 2).

    phashes: uint64 (n,); included: bool (n,), the rows to compare. Rows with equal hashes are linked as a chain, not
    each with each.
    """
    rows = np.flatnonzero(included)
    values, first, inverse = np.unique(phashes[rows], return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    same = inverse[order][1:] == inverse[order][:-1]
    chained = np.stack([order[:-1][same], order[1:][same]], 1)
    return rows[np.concatenate([chained, first[_near(values, bits)]])]


def _near(values: np.ndarray, bits: int) -> np.ndarray:
    """Pairs of different hashes at most `bits` bits apart: int array (m, 2) of positions in values.

    values: uint64, unique. Hashes that differ in k bits agree in at least one of k + 1 bands, so only hashes that share
    a band are compared (Norouzi et al., Fast Exact Search in Hamming Space, 2014). A pair that shares several
    bands is returned several times.
    """
    pairs = [np.empty((0, 2), np.int64)]
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        band = (values >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        for group in pd.Series(range(len(values)), dtype=int).groupby(band).indices.values():
            for position, one in enumerate(group[:-1]):
                others = group[position + 1 :]
                near = others[hamming(values[one], values[others]) <= bits]
                pairs.append(np.stack([np.full(len(near), one), near], 1))
    return np.concatenate(pairs)


def lookalikes(images: pd.DataFrame, settings: Split, placements: pd.Series | np.ndarray) -> list[set[str]]:
    """For each image without a capture time, the splits of the images with a time that look like it.

    images: as in links(); placements: text (n,), a split's name or "". Returns n sets; the set of an image with a time
    is empty. These links do not make episodes: one undated frame of a fixed camera would join all days of that camera.
    """
    phashes, has_hash = hashes(images)
    has_time = timed(images)
    splits_of_row: list[set[str]] = [set() for _ in range(len(images))]
    if not (has_hash & ~has_time).any():
        return splits_of_row
    values, inverse = np.unique(phashes[has_hash], return_inverse=True)
    splits_of_value: list[set[str]] = [set() for _ in values]
    for value, split, dated in zip(inverse, np.asarray(placements)[has_hash], has_time[has_hash], strict=True):
        if dated and split:
            splits_of_value[value].add(split)
    splits_nearby = [set(splits) for splits in splits_of_value]
    for one, other in _near(values, settings.near_duplicate_bits):
        splits_nearby[one] |= splits_of_value[other]
        splits_nearby[other] |= splits_of_value[one]
    for row, value in zip(np.flatnonzero(has_hash), inverse, strict=True):
        if not has_time[row]:
            splits_of_row[row] = splits_nearby[value]
    return splits_of_row


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """The number of each row's connected component: int (count,). pairs: int (m, 2) of row positions."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def names(rows: pd.DataFrame) -> pd.Series:
    """The name of each row's episode: camera and time of its first frame.

    If no frame of an episode has a capture time, the name holds the first SHA-256 digest instead.
    rows: DataFrame of device, captured_at, captured_from, sha256 and component. Returns a Series of text.
    """
    dated = rows[timed(rows)].sort_values(["captured_at", "sha256"])
    first = dated.drop_duplicates("component").set_index("component")
    by_time = first["device"].fillna("unknown") + " " + first["captured_at"].dt.strftime("%Y-%m-%dT%H:%M:%S")
    by_digest = "image " + rows.groupby("component")["sha256"].min().str[:16]
    return rows["component"].map(by_time).fillna(rows["component"].map(by_digest))
