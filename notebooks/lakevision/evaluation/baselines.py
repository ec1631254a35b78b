"""Baselines that cannot see the object: a model must beat them to show that it sees the object."""

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from lakevision.dataset import episodes
from lakevision.evaluation import confounding


def joined(images: pd.DataFrame, placements: pd.DataFrame) -> pd.DataFrame:
    """Metadata and placement of each image of the three splits, in the order of placements.

    images: as of split_table.metadata; placements: as of split.used.
    """
    return placements[["path", "sha256", "label", "episode", "split"]].merge(
        images.drop(columns=["label", "sha256"], errors="ignore"), on="path"
    )


def majority(rows: pd.DataFrame) -> np.ndarray:
    """Test rows that have the most frequent label of the other splits: bool (tests,). rows: of joined()."""
    test = rows["split"] == "test"
    return (rows.loc[test, "label"] == rows.loc[~test, "label"].mode()[0]).to_numpy()


def metadata(rows: pd.DataFrame) -> np.ndarray:
    """Test rows that a random forest on metadata predicts correctly: bool (tests,). rows: of joined().

    Its features are day, hour, camera, brightness, size and EXIF. It gets no pixels.
    """
    features, test = _numbers(confounding.features(rows)[0]), (rows["split"] == "test").to_numpy()
    # Every split considers all features: one strong feature must not hide among forty useless ones.
    forest = RandomForestClassifier(300, min_samples_leaf=2, max_features=None, random_state=0, n_jobs=1).fit(
        features[~test], rows.loc[~test, "label"]
    )
    return forest.predict(features[test]) == rows.loc[test, "label"].to_numpy()


def nearest_in_time(rows: pd.DataFrame, test: np.ndarray | None = None) -> np.ndarray | None:
    """Test rows that have the label of the nearest other image in time: bool (tests,).

    The nearest image is taken from the same camera if that camera has other images. rows: of joined();
    test: bool (n,), test rows of another split than the one in rows. None if most images have no capture time.
    """
    test = (rows["split"] == "test").to_numpy() if test is None else test
    dated = episodes.timed(rows)
    if dated.mean() <= 0.5:
        return None
    minutes = rows["captured_at"].to_numpy("datetime64[ns]").astype("int64") / 60e9
    labels, cameras = rows["label"].to_numpy(), rows["device"].fillna("unknown").to_numpy()
    predicted = np.full(len(rows), pd.Series(labels[~test]).mode()[0], dtype=object)
    for camera in np.unique(cameras[test]):
        known = np.flatnonzero(dated & ~test & (cameras == camera))
        known = known if len(known) else np.flatnonzero(dated & ~test)
        wanted = np.flatnonzero(dated & test & (cameras == camera))
        if not len(known) or not len(wanted):
            continue
        known = known[np.argsort(minutes[known], kind="stable")]
        position = np.searchsorted(minutes[known], minutes[wanted])
        before, after = known[np.clip(position - 1, 0, None)], known[np.clip(position, None, len(known) - 1)]
        before_is_nearer = np.abs(minutes[wanted] - minutes[before]) <= np.abs(minutes[after] - minutes[wanted])
        predicted[wanted] = labels[np.where(before_is_nearer, before, after)]
    return predicted[test] == labels[test]


def leakage(rows: pd.DataFrame, seed: int = 0) -> dict[str, float | None]:
    """Accuracy of nearest_in_time() under a random split of the same rows and under the actual split.

    Returns {"random_split": 0..1, "episodes": 0..1}; both are None if the images have no capture times.
    The difference is what a random split would gain by memorising near copies.
    """
    test = (rows["split"] == "test").to_numpy()
    actual, at_random = nearest_in_time(rows), nearest_in_time(rows, np.random.default_rng(seed).permutation(test))
    return {
        "random_split": None if at_random is None else float(at_random.mean()),
        "episodes": None if actual is None else float(actual.mean()),
    }


def _numbers(features: dict[str, pd.Series]) -> np.ndarray:
    """Features as a float array: a column for each of a text's 20 most frequent values; missing numbers are -1."""
    columns = []
    for values in features.values():
        if values.dtype.kind == "f":
            columns.append(values.fillna(-1).to_numpy()[:, None])
        else:
            frequent = values.value_counts().index[:20]
            columns.append((values.to_numpy()[:, None] == frequent.to_numpy()[None, :]).astype(float))
    return np.concatenate(columns, 1)
