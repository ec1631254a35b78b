"""The evaluation report: one HTML page that needs no other file.

It shows the model's purpose, the verdict with its figures, curves, slices and errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lakevision.dataset import object_region
from lakevision.evaluation import metrics
from lakevision.evaluation import plots as draw
from lakevision.evaluation import report_html as tags
from lakevision.evaluation.report_html import escape
from lakevision.evaluation.results import Evaluation, Material
from lakevision.platform.html import STYLE

if TYPE_CHECKING:
    from lakevision.dataset.cache import Cache
    from lakevision.platform.config import Config
    from lakevision.platform.workspace import Places
    from lakevision.training.loop import Setting

OUTCOME = {"evaluable": "good", "weak": "unsure"}  # classes of the style sheet; other verdicts are "bad"


def render(cfg: Config, evaluation: Evaluation, material: Material, made: dict[str, str], when: str) -> str:
    """The page as HTML. made: as of made(); when: the time of the evaluation, as text."""
    title = cfg.evaluation.purpose or f"Tells {tags.listed(material.classes)} apart in photographs"
    parts = [
        f"<h1>{escape(title)}</h1><p class='quiet'>Evaluation of {escape(when)}</p>",
        _verdict(evaluation, material),
        _made(made, material),
        _baselines(evaluation, material),
        _metrics(material),
        _curves(cfg, material, evaluation),
        _slices(material),
        _errors(material),
        _swaps(material),
        _champion(material),
        _unchecked(evaluation),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>lakevision evaluation: {escape(evaluation.verdict)}</title>"
        f"<style>{STYLE}{tags.STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def made(
    cfg: Config, setting: Setting, pixels: Cache, placed: pd.DataFrame, images: pd.DataFrame, scheme: str
) -> dict[str, str]:
    """The data and the settings of a training, {name: text}.

    placed: placements of split.assign; images: of split_table.metadata; scheme: the split's name.
    """
    from lakevision.dataset import episodes
    from lakevision.dataset.split import SPLIT_NAMES
    from lakevision.platform import workspace

    dated = images[episodes.timed(images)]["captured_at"]
    left_out = placed[~placed["split"].isin(SPLIT_NAMES)]["split"].value_counts()
    cameras = sorted(images["device"].fillna("unknown").unique())
    counts = [f"{count} {split}" for split, count in pixels.counts.items()]
    counts += [f"{count} {split} (left out)" for split, count in left_out.items()]
    times = f"{dated.min():%Y-%m-%d %H:%M} to {dated.max():%Y-%m-%d %H:%M} UTC" if len(dated) else "no capture times"
    return {
        "images": ", ".join(counts),
        "taken": times,
        "cameras": ", ".join(cameras[:8]) + (f" and {len(cameras) - 8} more" if len(cameras) > 8 else ""),
        "table": f"images, Delta version {pixels.delta_version}; split {scheme}",
        "network": (
            f"{setting.model}, width {setting.width}, {setting.epochs} epochs, "
            f"learning rate {setting.learning_rate:.2g}, dropout {setting.dropout:.2f}"
            + (f", regions swapped in {setting.swap:.0%}" if setting.swap else "")
        ),
        "sees": f"{pixels.transform}",
        "threshold": f"{cfg.training.threshold:g}",
        "code": workspace.commit(),
    }


def keep(places: Places, page: str) -> str:
    """Writes the page to figures/report.html, from which the runner copies it. Returns the path."""
    path = Path(places.figures) / "report.html"
    path.write_text(page, encoding="utf-8")
    return str(path)


def _verdict(evaluation: Evaluation, material: Material) -> str:
    accuracy = material.evidence.accuracy
    first = (
        f"<b>{escape(evaluation.verdict)}</b>: accuracy {accuracy} on {accuracy.count} images of "
        f"{accuracy.episodes} episodes that were not used for training."
    )
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in evaluation.reasons)
    return f'<div class="outcome {OUTCOME.get(evaluation.verdict, "bad")}">{first}<ul>{reasons}</ul></div>'


def _made(made: dict[str, str], material: Material) -> str:
    made = {"classes": ", ".join(material.classes), **made}
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in made.items())
    return f"<h2>What it was trained on</h2><div class='wide'><table>{rows}</table></div>"


def _baselines(evaluation: Evaluation, material: Material) -> str:
    leakage, swapped = evaluation.leakage, material.swapped
    text = [
        "<p>A useful model beats the baselines that cannot see the object: a random forest on camera, day, hour, "
        "light, size and EXIF; the label of the nearest image in time; the same network, trained with the object's "
        "region hidden.</p>"
    ]
    if leakage["random_split"] is not None:
        text.append(
            f"<p>With a random split, the nearest image in time would reveal the label of "
            f"{leakage['random_split']:.1%} of the test images. With whole episodes apart it reveals "
            f"{leakage['episodes']:.1%}.</p>"
        )
    if swapped:
        text.append(
            f"<p>The swap test exchanges the object's region between photographs of one camera that are alike in hour "
            f"and light. The prediction follows the object in {swapped.followed} of {len(swapped.pairs)} swaps. "
            f"If the region is exchanged within a class, the prediction stays in "
            f"{tags.number(swapped.same_class)}.</p>"
        )
    plots = [
        tags.plot(draw.small(draw.model_and_baselines, material), "accuracy of the model and of the baselines"),
        tags.plot(draw.small(draw.explained, material.checked), "how much of the label each circumstance explains"),
    ]
    if len(material.shown):
        figure = draw.small(draw.looked_at, material, height=4.4)
        plots.append(tags.plot(figure, "mean picture with an occlusion map and the hidden region"))
    return f"<h2>Does it see the object?</h2>{''.join(text)}<div class='plots'>{''.join(plots)}</div>"


def _metrics(material: Material) -> str:
    episodes = material.rows["episode"].to_numpy()
    overall = metrics.overall(material.probabilities, material.test.targets, episodes)
    classes = metrics.by_class(material.probabilities, material.test.targets, episodes, material.classes)
    of_all = pd.DataFrame(
        {
            "metric": overall["metric"],
            "value": overall["value"].map(tags.number),
            "95 % interval": tags.interval(overall["low"], overall["high"]),
        }
    )
    of_classes = {"class": classes["class"], "images": classes["images"].astype(str)}
    for name in ("precision", "recall", "F1"):
        intervals = tags.interval(classes[f"{name}_low"], classes[f"{name}_high"])
        of_classes[name] = classes[name].map(tags.number) + " " + intervals
    return (
        "<h2>Metrics</h2><p class='quiet'>95 % intervals by a bootstrap over episodes, not frames, because frames of "
        f"one episode are near copies.</p>{tags.table(of_all)}{tags.table(pd.DataFrame(of_classes))}"
    )


def _curves(cfg: Config, material: Material, evaluation: Evaluation) -> str:
    plots = [
        tags.plot(draw.small(draw.confusion, evaluation.confusion, material.classes, height=4.2), "confusion matrix"),
        tags.plot(draw.small(draw.roc, material), "ROC curve"),
        tags.plot(draw.small(draw.precision_recall, material), "precision-recall curve"),
        tags.plot(draw.small(draw.reliability, material), "reliability diagram"),
    ]
    text = ""
    if len(material.classes) == 2:
        miss, false_alarm = cfg.evaluation.miss_cost, cfg.evaluation.false_alarm_cost
        plots.append(tags.plot(draw.small(draw.cost, material, miss, false_alarm), "cost by threshold"))
        text = (
            f"<p>A missed {escape(material.classes[-1])} costs {miss:g}, a false alarm {false_alarm:g} "
            f"(evaluation.miss_cost, evaluation.false_alarm_cost). On the validation split, a threshold of "
            f"{evaluation.cheapest_threshold:.2f} is cheapest; with exact probabilities, "
            f"{false_alarm / (false_alarm + miss):.2f} would be (Elkan, 2001). The model uses "
            f"{cfg.training.threshold:g} (training.threshold).</p>"
        )
    return f"<h2>Errors, thresholds, calibration</h2>{text}<div class='plots'>{''.join(plots)}</div>"


def _slices(material: Material) -> str:
    table = material.slices
    shown = pd.DataFrame(
        {
            "slice": table["slice"],
            "of": table["value"],
            "images": table["images"],
            "episodes": table["episodes"],
            "accuracy": table["accuracy"].map(tags.number),
            "95 % interval": tags.interval(table["low"], table["high"]),
        }
    )
    plot = tags.plot(draw.small(draw.slices, material, height=4.2), "accuracy by slice")
    return f"<h2>Slices, worst first</h2>{tags.table(shown)}<div class='plots'>{plot}</div>"


def _errors(material: Material) -> str:
    if not len(material.shown):
        return ""
    wrong = int((~material.right[material.shown]).sum())
    tiles = []
    for index, heat in zip(material.shown, material.falls, strict=True):
        row, scores, truth = material.rows.iloc[index], material.probabilities[index], material.test.targets[index]
        predicted = scores.argmax()
        when = f"{row['captured_at']:%Y-%m-%d %H:%M}, " if row["captured_from"] != "file" else ""
        caption = (
            f"{'<b>wrong</b>' if predicted != truth else 'right, unsure'}: predicted "
            f"{escape(material.classes[predicted])} ({scores[predicted]:.2f}), is {escape(material.classes[truth])}"
            f"<br>{when}{escape(row['device'])}<br>{escape(row['path'])}"
        )
        picture = draw.tile(material.test.pixels[index], heat)
        tiles.append(tags.tile(picture, "photograph and occlusion map", caption))
    heading = f"{wrong} of these {len(tiles)} predictions are wrong" if wrong else "No errors: the least sure images"
    return (
        f"<h2>The worst errors</h2><p>{heading}. The images whose true class is least probable come first. Right of "
        "each photograph, its occlusion map: the lighter a part, the more the prediction depends on it.</p>"
        f"<div class='tiles'>{''.join(tiles)}</div>"
    )


def _swaps(material: Material) -> str:
    swapped, pixels, region = material.swapped, material.test.pixels, material.evidence.region
    if not swapped or region is None:
        return ""
    order = np.argsort(swapped.right, kind="stable")[:6]  # swaps that the prediction did not follow come first
    pairs = swapped.pairs[order]
    pasted = object_region.paste(pixels[pairs[:, 0]], pixels[pairs[:, 1]], region)
    names = [escape(name) for name in material.classes]
    captions = [
        f"surroundings of {names[base]}, region of {names[donor]}: predicted {names[predicted]}"
        for (base, donor), predicted in zip(material.test.targets[pairs], swapped.predicted[order], strict=True)
    ]
    tiles = [
        tags.tile(draw.tile(picture), "photograph with an exchanged region", caption)
        for picture, caption in zip(pasted, captions, strict=True)
    ]
    return (
        "<h2>Exchanged objects</h2><p>Swaps that the prediction did not follow come first.</p>"
        f"<div class='tiles'>{''.join(tiles)}</div>"
    )


def _champion(material: Material) -> str:
    champion = material.champion
    if not champion:
        return "<h2>Against the champion</h2><p>No model serves yet.</p>"
    text = f"<p>Version {escape(champion['version'])} serves now. {escape(champion['note'])}</p>"
    if "difference" in champion:
        text += (
            f"<p>On the same {champion['images']} held-out images: this model {champion['challenger']:.3f}, "
            f"the champion {champion['champion']:.3f}; difference {champion['difference']:+.3f} "
            f"[{champion['low']:+.3f}, {champion['high']:+.3f}].</p>"
        )
    return f"<h2>Against the champion</h2>{text}"


def _unchecked(evaluation: Evaluation) -> str:
    items = "".join(f"<li>{escape(item)}</li>" for item in evaluation.unchecked)
    return f"<h2>What was not checked</h2>{f'<ul>{items}</ul>' if items else '<p>All checks of this report ran.</p>'}"
