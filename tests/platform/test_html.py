"""The style sheet of all pages."""

import re

from lakevision.platform import html


def test_style_colours_each_outcome():
    colours = dict(re.findall(r"\.outcome\.(\w+) \{ border-color: (#\w{6}) \}", html.STYLE))
    assert set(colours) == {"good", "bad", "unsure"} and len(set(colours.values())) == 3


def test_style_needs_no_network_and_closes_its_blocks():
    assert not re.search(r"url\(|@import|https?:", html.STYLE)
    assert html.STYLE.count("{") == html.STYLE.count("}") and "</" not in html.STYLE


def test_style_has_a_rule_for_each_element_of_a_page():
    selectors = {name.strip() for group in re.findall(r"([^{}]+)\{", html.STYLE) for name in group.split(",")}
    assert {"body", "h1", "h2", "table", "td", "th", "img", "pre"} <= selectors
