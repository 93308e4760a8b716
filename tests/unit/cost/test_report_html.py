from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from farmhand.cost.report import as_document
from farmhand.cost.report_html import CHART_NAME, CHART_SHA256, CHART_VERSION, page
from tests.unit.cost.reports import made_up

ASSETS = files("farmhand.cost").joinpath("assets")
CSS = ASSETS.joinpath("report.css").read_text("utf-8")


class _Scripts(HTMLParser):
    """The page as an HTML parser sees it: its elements, and the text of its scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.elements.append((f"/{tag}", {}))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style"):
            self.texts[-1] += data


@pytest.fixture(scope="module")
def parsed() -> _Scripts:
    parser = _Scripts()
    parser.feed(page(as_document(made_up())))
    return parser


def test_no_name_ends_the_data_and_the_data_is_the_document(parsed: _Scripts) -> None:
    assert [tag for tag, _ in parsed.elements].count("script") == 3
    assert "img" not in [tag for tag, _ in parsed.elements]
    assert json.loads(parsed.texts[2]) == as_document(made_up())
    assert not re.search("[<>&\u2028\u2029]", parsed.texts[2])


def test_the_policy_allows_what_is_in_the_page_and_nothing_else(parsed: _Scripts) -> None:
    (policy,) = (
        dict_["content"] or ""
        for tag, dict_ in parsed.elements
        if tag == "meta" and dict_.get("http-equiv") == "Content-Security-Policy"
    )
    style, chart, _, script = parsed.texts
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (style, chart, script)
    ]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert re.findall(r"'sha256-[^']+'", policy) == [digests[1], digests[2], digests[0]]


def test_it_names_no_other_file(parsed: _Scripts) -> None:
    assert not [attrs for _, attrs in parsed.elements if {"src", "style", "onclick"} & set(attrs)]
    assert {attrs.get("href") for _, attrs in parsed.elements} <= {None, "#content"}
    assert "sourceMappingURL" not in "".join(parsed.texts)
    assert "url(" not in CSS


def test_the_charting_library_is_the_one_of_its_package_with_its_licence() -> None:
    content = ASSETS.joinpath(CHART_NAME).read_bytes()
    assert hashlib.sha256(content).hexdigest() == CHART_SHA256
    assert f"Chart.js v{CHART_VERSION}".encode() in content[:200]
    assert "MIT License" in ASSETS.joinpath("chart.LICENSE.md").read_text("utf-8")


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_charts_stand_out_in_both_schemes(dark: bool) -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", CSS.split("@media (prefers-color-scheme: dark)")[dark]))
    for ground in ("page", "card"):
        for ink in ("text", "soft", "accent"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for number in range(8):
        assert contrast(colours[f"c{number}"], colours["card"]) >= 3, number
