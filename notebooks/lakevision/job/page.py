"""The page of a run: the outcome first, then the figures by question, then the pictures."""

import html

from lakevision.job import notebook_runner, page_words
from lakevision.platform.html import STYLE

# On a narrow screen, a figure stands below its label.
LAYOUT = """
td { overflow-wrap: anywhere } table.figures { width: 100% }
table.figures td:first-child { width: 42%; color: #55606c }
@media (max-width: 40rem) {
  table.figures td { display: block; padding-right: 0 }
  table.figures td:first-child { width: auto; border: 0; padding-bottom: 0 }
}
"""


def render(summary: dict, done: list[notebook_runner.Done], title: str) -> str:
    """The page as HTML. It needs no other file; only its links lead to the notebooks and the report.

    summary: the content of summary.json; done: the notebooks that ran; title: text below the heading.
    """
    parts = [f"<h1>lakevision</h1><p>{html.escape(title)}</p>", _outcome(summary, done)]
    rows = page_words.rows(summary)
    for question in (*page_words.QUESTIONS, page_words.OTHER):
        answers = [(label, text) for group, label, text in rows if group == question]
        if question == page_words.TIME:
            total = sum(notebook["seconds"] for notebook in summary["notebooks"])
            answers.insert(0, ("All notebooks of this run", page_words.seconds(total)))
        before = _notebooks(summary) if question == page_words.WORKED else ""
        if answers or before:
            parts.append(f"<h2>{question}</h2>{before}{_table(answers)}")
    parts += [_picture(notebook) for notebook in done if notebook.pictures]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>lakevision run</title><style>{STYLE}{LAYOUT}</style><body>{''.join(parts)}</body></html>"
    )


def _outcome(summary: dict, done: list[notebook_runner.Done]) -> str:
    failed = next((notebook for notebook in done if notebook.failure), None)
    if failed and failed.failure:
        return (
            f'<div class="outcome bad"><b>{failed.name} stopped in cell {failed.failure.cell}.</b></div>'
            f"<pre>{html.escape(failed.failure.source)}</pre><pre>{html.escape(failed.failure.traceback[-4000:])}</pre>"
        )
    train, deploy = summary.get("train"), summary.get("deploy")
    if not train:
        return '<div class="outcome">No model has been trained yet.</div>'
    kind = {"evaluable": "good", "weak": "unsure"}.get(train["verdict"], "bad")
    lines = [
        f"<b>{html.escape(train['verdict'])}</b>: accuracy {train['accuracy']:.3f} on held-out episodes; "
        f"a baseline that sees no pixels reaches {train['metadata_baseline']:.3f}."
    ]
    if deploy:
        lines.append(
            f"Version {deploy['version']} of {html.escape(deploy['model'])} is <b>{deploy['alias']}</b>: "
            f"{html.escape(deploy['reason'])}."
        )
    if train.get("report"):
        lines.append(
            '<a href="report.html">The evaluation report</a> shows the evidence: curves, slices and the worst errors.'
        )
    if train["verdict"] != "evaluable":
        lines += [html.escape(reason) for reason in train["reasons"] if not deploy or reason not in deploy["reason"]]
    return f'<div class="outcome {kind}">{"<br>".join(lines)}</div>'


def _table(rows: list[tuple[str, str]]) -> str:
    cells = (f"<tr><td>{html.escape(label)}</td><td>{html.escape(text)}</td></tr>" for label, text in rows)
    return f'<table class="figures">{"".join(cells)}</table>'


def _notebooks(summary: dict) -> str:
    rows = []
    for notebook in summary["notebooks"]:
        name, status = html.escape(notebook["name"]), notebook["status"]
        kept = status in ("ok", "failed")
        link = f'<a href="{name}.html">{name}</a> <a href="{name}.ipynb">.ipynb</a>' if kept else name
        time = page_words.seconds(notebook["seconds"]) if kept else ""
        rows.append(f"<tr><td>{link}</td><td>{status}</td><td>{time}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _picture(notebook: notebook_runner.Done) -> str:
    """The last picture of a notebook, with a link to it."""
    return (
        f'<h2>{notebook.name}</h2><a href="{notebook.name}.html"><img alt="last picture of {notebook.name}" '
        f'src="data:image/png;base64,{notebook.pictures[-1].strip()}"></a>'
    )
