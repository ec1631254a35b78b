"""The evaluation as one HTML page that needs nothing outside it: what the model is for, the verdict and its figures, curves, slices, errors."""

import base64
import html
from pathlib import Path

import numpy as np
import pandas as pd

from lakevision.dataset import object_region
from lakevision.evaluation import metrics
from lakevision.evaluation import plots as draw
from lakevision.platform.html import STYLE

MORE_STYLE = """
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; align-items: start }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); gap: 1rem }
.plots img { border: 0 } figure { margin: 0 } figcaption { font-size: .85rem; color: #46535f; overflow-wrap: anywhere } .tiles img { width: 100% }
.wide { overflow-x: auto; margin-bottom: 1rem } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
p, li { max-width: 46rem } .quiet { color: #5b6773; font-size: .9rem }
"""
KIND = {"evaluable": "good", "weak": "unsure"}


def render(cfg, evaluation, material, made, when):
    """The page, text. made: dict of what the model was trained on and with, in words; when: text."""
    title = cfg.evaluation.purpose or f"Tells {_listed(material.classes)} apart in photographs"
    parts = [
        f"<h1>{_e(title)}</h1><p class='quiet'>Evaluation of {_e(when)}</p>",
        _verdict(evaluation, material),
        _made(made, material),
        _who_knows(evaluation, material),
        _metrics(material),
        _curves(cfg, material, evaluation),
        _slices(material),
        _errors(material),
        _swaps(material),
        _champion(material),
        _unchecked(evaluation),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>lakevision evaluation: {_e(evaluation.verdict)}</title><style>{STYLE}{MORE_STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def made(cfg, setting, pixels, placed, images, scheme):
    """What a model was trained on and with, {name: text}. setting: loop.Setting; pixels: cache.Cache; placed: of split.assign; images: of
    split_table.metadata."""
    from lakevision.dataset import episodes
    from lakevision.dataset.split import SPLIT_NAMES
    from lakevision.platform import workspace

    dated = images[episodes.timed(images)]["captured_at"]
    left_out = placed[~placed["split"].isin(SPLIT_NAMES)]["split"].value_counts()
    cameras = sorted(images["device"].fillna("unknown").unique())
    counts = [f"{count} {side}" for side, count in pixels.counts.items()] + [
        f"{count} {side} (left out)" for side, count in left_out.items()
    ]
    return {
        "images": ", ".join(counts),
        "taken": f"{dated.min():%Y-%m-%d %H:%M} to {dated.max():%Y-%m-%d %H:%M} UTC"
        if len(dated)
        else "no capture times",
        "cameras": ", ".join(cameras[:8]) + (f" and {len(cameras) - 8} more" if len(cameras) > 8 else ""),
        "table": f"images, Delta version {pixels.delta_version}; split {scheme}",
        "network": (
            f"{setting.model}, width {setting.width}, {setting.epochs} epochs, learning rate {setting.learning_rate:.2g}, "
            f"dropout {setting.dropout:.2f}" + (f", regions swapped in {setting.swap:.0%}" if setting.swap else "")
        ),
        "sees": f"{pixels.transform}",
        "threshold": f"{cfg.training.threshold:g}",
        "code": workspace.commit(),
    }


def keep(region, page):
    """Writes the page where the runner finds it: figures/report.html. Returns the path."""
    path = Path(region.figures) / "report.html"
    path.write_text(page, encoding="utf-8")
    return str(path)


def _verdict(evaluation, material):
    evidence = material.evidence
    first = (
        f"<b>{_e(evaluation.verdict)}</b>: accuracy {evidence.accuracy} on {evidence.accuracy.count} images of {evidence.accuracy.episodes} episodes "
        "that were not used for training."
    )
    reasons = "".join(f"<li>{_e(reason)}</li>" for reason in evaluation.reasons)
    return f'<div class="outcome {KIND.get(evaluation.verdict, "bad")}">{first}<ul>{reasons}</ul></div>'


def _made(made, material):
    made = {"classes": ", ".join(material.classes), **made}
    rows = "".join(f"<tr><td>{_e(name)}</td><td>{_e(value)}</td></tr>" for name, value in made.items())
    return f"<h2>What it was trained on</h2><div class='wide'><table>{rows}</table></div>"


def _who_knows(evaluation, material):
    leakage = evaluation.leakage
    text = [
        "<p>A model is worth what it knows beyond those that cannot see the object: a random forest that knows camera, day, hour, light, size "
        "and EXIF; the label of the nearest image in time; the same network trained with the object's region hidden.</p>"
    ]
    if leakage["random_split"] is not None:
        text.append(
            f"<p>Split at random, the nearest image in time would tell the label of {leakage['random_split']:.1%} of the test images; with "
            f"whole episodes apart it tells {leakage['episodes']:.1%}.</p>"
        )
    if material.swapped:
        swapped = material.swapped
        text.append(
            f"<p>With the object's region exchanged between photographs of one camera, alike in hour and light, the prediction follows the "
            f"object in {swapped.followed} of {len(swapped.pairs)} swaps; exchanged within a class, it stays in "
            f"{_number(swapped.same_class)}.</p>"
        )
    plots = [
        _plot(draw.small(draw.who_knows, material), "accuracy of the model and of the baselines"),
        _plot(draw.small(draw.explained, material.checked), "how much of the label each circumstance explains"),
    ]
    if len(material.shown):
        plots.append(
            _plot(
                draw.small(draw.looked_at, material, height=4.4),
                "mean picture with an occlusion map and the hidden region",
            )
        )
    return f"<h2>Does it see the object?</h2>{''.join(text)}<div class='plots'>{''.join(plots)}</div>"


def _metrics(material):
    episodes = material.rows["episode"].to_numpy()
    overall = metrics.overall(material.probabilities, material.test.targets, episodes)
    classes = metrics.by_class(material.probabilities, material.test.targets, episodes, material.classes)
    one = pd.DataFrame(
        {
            "metric": overall["metric"],
            "value": overall["value"].map(_number),
            "95 % interval": _interval(overall["low"], overall["high"]),
        }
    )
    table = {"class": classes["class"], "images": classes["images"].astype(str)}
    for name in ("precision", "recall", "F1"):
        table[name] = classes[name].map(_number) + " " + _interval(classes[f"{name}_low"], classes[f"{name}_high"])
    return (
        "<h2>Metrics</h2><p class='quiet'>95 % intervals by a bootstrap over episodes, not frames: frames of one episode are near copies.</p>"
        f"{_table(one)}{_table(pd.DataFrame(table))}"
    )


def _curves(cfg, material, evaluation):
    plots = [
        _plot(draw.small(draw.confusion, evaluation.confusion, material.classes, height=4.2), "confusion matrix"),
        _plot(draw.small(draw.roc, material), "ROC curve"),
        _plot(draw.small(draw.precision_recall, material), "precision-recall curve"),
        _plot(draw.small(draw.reliability, material), "reliability diagram"),
    ]
    text = ""
    if len(material.classes) == 2:
        miss, false_alarm = cfg.evaluation.miss_cost, cfg.evaluation.false_alarm_cost
        plots.append(_plot(draw.small(draw.cost, material, miss, false_alarm), "cost by threshold"))
        text = (
            f"<p>A missed {_e(material.classes[-1])} costs {miss:g}, a false alarm {false_alarm:g} (evaluation.miss_cost, "
            f"evaluation.false_alarm_cost). On the validation side a threshold of {evaluation.cheapest_threshold:.2f} is cheapest; were the probabilities exact, it would be "
            f"{false_alarm / (false_alarm + miss):.2f} (Elkan, 2001). The model carries {cfg.training.threshold:g} (training.threshold).</p>"
        )
    return f"<h2>Errors, thresholds, calibration</h2>{text}<div class='plots'>{''.join(plots)}</div>"


def _slices(material):
    table = material.slices
    shown = pd.DataFrame(
        {
            "slice": table["slice"],
            "of": table["value"],
            "images": table["images"],
            "episodes": table["episodes"],
            "accuracy": table["accuracy"].map(_number),
            "95 % interval": _interval(table["low"], table["high"]),
        }
    )
    plot = _plot(draw.small(draw.slices, material, height=4.2), "accuracy by slice")
    return f"<h2>Slices, worst first</h2>{_table(shown)}<div class='plots'>{plot}</div>"


def _errors(material):
    if not len(material.shown):
        return ""
    wrong = int((~material.right[material.shown]).sum())
    tiles = []
    for place, index in enumerate(material.shown):
        row, scores, truth = material.rows.iloc[index], material.probabilities[index], material.test.targets[index]
        said = scores.argmax()
        when = f"{row['captured_at']:%Y-%m-%d %H:%M}, " if row["captured_from"] != "file" else ""
        caption = (
            f"{'<b>wrong</b>' if said != truth else 'right, unsure'}: says {_e(material.classes[said])} ({scores[said]:.2f}), "
            f"is {_e(material.classes[truth])}<br>{when}{_e(row['device'])}<br>{_e(row['path'])}"
        )
        tiles.append(
            _tile(
                draw.tile(material.test.pixels[index], material.falls[place]), "photograph and occlusion map", caption
            )
        )
    heading = (
        f"{wrong} of these {len(material.shown)} answers are wrong" if wrong else "No errors: the least sure answers"
    )
    return (
        f"<h2>The worst errors</h2><p>{heading}. What was thought least likely to be true comes first. Beside each picture: the lighter, the more the answer depends on that part.</p>"
        f"<div class='tiles'>{''.join(tiles)}</div>"
    )


def _swaps(material):
    if not material.swapped:
        return ""
    swapped, pixels, region = material.swapped, material.test.pixels, material.evidence.region
    order = np.argsort(swapped.right, kind="stable")[:6]  # those that did not follow first
    pairs = swapped.pairs[order]
    made = object_region.paste(pixels[pairs[:, 0]], pixels[pairs[:, 1]], region)
    names = [_e(name) for name in material.classes]
    captions = [
        f"surroundings of {names[around]}, region of {names[inside]}: says {names[said]}"
        for (around, inside), said in zip(material.test.targets[pairs], swapped.predicted[order])
    ]
    tiles = [
        _tile(draw.tile(picture), "photograph with an exchanged region", caption)
        for picture, caption in zip(made, captions)
    ]
    return f"<h2>Exchanged objects</h2><p>Swaps that the prediction did not follow come first.</p><div class='tiles'>{''.join(tiles)}</div>"


def _champion(material):
    found = material.champion
    if not found:
        return "<h2>Against the champion</h2><p>No model serves yet.</p>"
    text = f"<p>Version {_e(found['version'])} serves now. {_e(found['note'])}</p>"
    if "difference" in found:
        text += (
            f"<p>On the same {found['images']} held-out images: this model {found['challenger']:.3f}, the champion {found['champion']:.3f}; "
            f"difference {found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}].</p>"
        )
    return f"<h2>Against the champion</h2>{text}"


def _unchecked(evaluation):
    items = "".join(f"<li>{_e(item)}</li>" for item in evaluation.unchecked)
    return (
        f"<h2>What was not checked</h2><ul>{items}</ul>"
        if items
        else "<h2>What was not checked</h2><p>Nothing that this report knows of.</p>"
    )


def _plot(figure, alt):
    return _image(draw.png(figure), alt)


def _tile(data, alt, caption):
    return f"<figure>{_image(data, alt)}<figcaption>{caption}</figcaption></figure>"


def _image(data, alt):
    return f'<img alt="{_e(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _table(frame):
    head = "".join(f"<th{_kind(name)}>{_e(name)}</th>" for name in frame.columns)
    rows = [
        "".join(f"<td{_kind(name)}>{_e(value)}</td>" for name, value in zip(frame.columns, row))
        for row in frame.itertuples(index=False)
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>"


def _kind(name):
    return "" if name in ("metric", "class", "slice", "of") else " class='number'"


def _number(value):
    return "none" if pd.isna(value) else f"{value:.3f}"


def _interval(low, high):
    return ["" if pd.isna(a) or pd.isna(b) else f"[{a:.3f}, {b:.3f}]" for a, b in zip(low, high)]


def _listed(names, most=6):
    shown = (
        [str(name) for name in names]
        if len(names) <= most
        else [*map(str, names[: most - 1]), f"{len(names) - most + 1} more"]
    )
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def _e(text):
    return html.escape(str(text))
