"""The figures of an evaluation are plain JSON."""

import numpy as np


def test_figures_are_plain_json(whole):
    import json

    _, evaluation, _ = whole
    again = json.loads(json.dumps(evaluation.figures(), allow_nan=False))
    assert again["accuracy"] == evaluation.accuracy and np.sum(again["confusion"]) > 0
