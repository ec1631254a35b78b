"""The page that a run ends with: what came out, in the first lines; then the pictures and the notebooks."""

import html

from lakevision.platform.html import STYLE

HIDDEN = ("reason", "cache", "model_uri", "report")  # said above, or of use to machines only


def render(summary, done, when):
    """The page as HTML, with nothing outside it but links to the notebooks. summary: as in summary.json; done: list of notebook_runner.Done; when: text."""
    parts = [
        f"<h1>lakevision</h1><p>{html.escape(when)}</p>",
        _outcome(summary, done),
        _figures(summary),
        "<h2>Notebooks</h2>",
        _notebooks(summary),
    ]
    for notebook in done:
        if notebook.pictures:
            parts.append(
                f'<h2>{notebook.name}</h2><a href="{notebook.name}.html"><img alt="last picture of {notebook.name}" '
                f'src="data:image/png;base64,{notebook.pictures[-1].strip()}"></a>'
            )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>lakevision run</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def _outcome(summary, done):
    failed = next((notebook for notebook in done if notebook.status == "failed"), None)
    if failed:
        return (
            f'<div class="outcome bad"><b>{failed.name} stopped in cell {failed.failure.cell}.</b></div>'
            f"<pre>{html.escape(failed.failure.source)}</pre><pre>{html.escape(failed.failure.traceback[-4000:])}</pre>"
        )
    train, deploy = summary.get("train"), summary.get("deploy")
    if not train:
        return '<div class="outcome">No model has been trained yet.</div>'
    kind = {"evaluable": "good", "weak": "unsure"}.get(train["verdict"], "bad")
    lines = [
        f"<b>{html.escape(train['verdict'])}</b>: accuracy {train['accuracy']:.3f} on held-out episodes, "
        f"a baseline that sees no pixel {train['metadata_baseline']:.3f}."
    ]
    if deploy:
        lines.append(
            f"Version {deploy['version']} of {html.escape(deploy['model'])} is <b>{deploy['alias']}</b>: {html.escape(deploy['reason'])}."
        )
    if train.get("report"):
        lines.append(
            '<a href="report.html">The evaluation report</a>: what led to this, curves, slices, the worst errors.'
        )
    if train["verdict"] != "evaluable":
        lines += [html.escape(reason) for reason in train["reasons"] if not deploy or reason not in deploy["reason"]]
    return f'<div class="outcome {kind}">{"<br>".join(lines)}</div>'


def _figures(summary):
    rows = []
    for section, figures in summary.items():
        if section != "notebooks":
            rows += [
                f"<tr><td>{section}</td><td>{html.escape(key)}</td><td>{html.escape(_shown(value))}</td></tr>"
                for key, value in figures.items()
                if isinstance(value, (int, float, str, bool)) and value != "" and key not in HIDDEN
            ]
    return f"<h2>Figures</h2><table>{''.join(rows)}</table>"


def _shown(value):
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1e-3 else f"{value:,.3f}"
    return str(value)


def _notebooks(summary):
    rows = []
    for notebook in summary["notebooks"]:
        name = html.escape(notebook["name"])
        link = (
            f'<a href="{name}.html">{name}</a> <a href="{name}.ipynb">.ipynb</a>'
            if notebook["status"] in ("ok", "failed")
            else name
        )
        rows.append(f"<tr><td>{link}</td><td>{notebook['seconds']:.0f} s</td><td>{notebook['status']}</td></tr>")
    return f"<table>{''.join(rows)}</table>"
