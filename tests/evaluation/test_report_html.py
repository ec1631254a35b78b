"""The report's HTML: text is escaped, numbers align to the right, pictures are embedded."""

import base64

import pandas as pd

from lakevision.evaluation import report_html


def test_text_is_escaped():
    assert report_html.escape('<b> & "c"') == "&lt;b&gt; &amp; &quot;c&quot;"
    assert "<script>" not in report_html.table(pd.DataFrame({"class": ["<script>"]}))


def test_picture_is_embedded_with_its_text():
    element = report_html.tile(b"\x89PNG", "a <cat>", "caption")
    assert base64.b64encode(b"\x89PNG").decode() in element and 'alt="a &lt;cat&gt;"' in element
    assert "<figcaption>caption</figcaption>" in element and "http" not in element


def test_numbers_align_right_and_text_left():
    table = report_html.table(pd.DataFrame({"metric": ["accuracy"], "value": [0.5]}))
    assert "<th>metric</th>" in table and '<th class="number">value</th>' in table.replace("'", '"')
    assert table.count("<tr>") == 2
