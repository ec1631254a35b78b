"""What can be scored without looking at the object: a model that does no better has not been shown to see it."""

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from lakevision.dataset import episodes
from lakevision.evaluation import confounding


def joined(images, placements):
    """What is known of each image that is learnt from or judged on, in the order of sides. images: as of split_table.metadata; sides: of split.used."""
    return placements[["path", "sha256", "label", "episode", "split"]].merge(
        images.drop(columns=["label", "sha256"], errors="ignore"), on="path"
    )


def majority(rows):
    """Which test rows saying the most frequent label gets right: bool (tests,). rows: of joined()."""
    test = rows["split"] == "test"
    return (rows.loc[test, "label"] == rows.loc[~test, "label"].mode()[0]).to_numpy()


def metadata(rows):
    """Which test rows a random forest gets right that knows day, hour, camera, light, size and EXIF, and sees no pixel: bool (tests,)."""
    features, test = _numbers(confounding.features(rows)[0]), (rows["split"] == "test").to_numpy()
    # All features at each split: one that tells everything must not hide among forty that tell nothing.
    forest = RandomForestClassifier(300, min_samples_leaf=2, max_features=None, random_state=0, n_jobs=1).fit(
        features[~test], rows.loc[~test, "label"]
    )
    return forest.predict(features[test]) == rows.loc[test, "label"].to_numpy()


def nearest_in_time(rows, test=None):
    """Which test rows get their label right from the nearest other image in time, of the same camera where there is one: bool (tests,).

    test: bool (n,), another division than that of rows. None where most images have no time.
    """
    test = (rows["split"] == "test").to_numpy() if test is None else test
    dated = episodes.timed(rows)
    if dated.mean() <= 0.5:
        return None
    minutes = rows["captured_at"].to_numpy("datetime64[ns]").astype("int64") / 60e9
    labels, cameras = rows["label"].to_numpy(), rows["device"].fillna("unknown").to_numpy()
    guess = np.full(len(rows), pd.Series(labels[~test]).mode()[0], dtype=object)
    for camera in np.unique(cameras[test]):
        known = np.flatnonzero(dated & ~test & (cameras == camera))
        known = known if len(known) else np.flatnonzero(dated & ~test)
        asked = np.flatnonzero(dated & test & (cameras == camera))
        if not len(known) or not len(asked):
            continue
        known = known[np.argsort(minutes[known], kind="stable")]
        place = np.searchsorted(minutes[known], minutes[asked])
        before, after = known[np.clip(place - 1, 0, None)], known[np.clip(place, None, len(known) - 1)]
        nearer = np.abs(minutes[asked] - minutes[before]) <= np.abs(minutes[after] - minutes[asked])
        guess[asked] = labels[np.where(nearer, before, after)]
    return guess[test] == labels[test]


def leakage(rows, seed=0):
    """How well the nearest image in time tells the label, {"random_split", "episodes"}: had the rows been split at random, and as they are. None each
    where there are no times. What a random split scores above the other, it scores by memory."""
    test = (rows["split"] == "test").to_numpy()
    as_is, at_random = nearest_in_time(rows), nearest_in_time(rows, np.random.default_rng(seed).permutation(test))
    return {
        "random_split": None if at_random is None else float(at_random.mean()),
        "episodes": None if as_is is None else float(as_is.mean()),
    }


def _numbers(features):
    """Features as a float array: texts one column for each of their 20 most frequent values, what is missing -1."""
    columns = []
    for values in features.values():
        if values.dtype.kind == "f":
            columns.append(values.fillna(-1).to_numpy()[:, None])
        else:
            frequent = values.value_counts().index[:20]
            columns.append((values.to_numpy()[:, None] == frequent.to_numpy()[None, :]).astype(float))
    return np.concatenate(columns, 1)
