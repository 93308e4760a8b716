"""The report as one HTML file that needs nothing else: styles, scripts, the charting library and the data are in it.

What comes from the ledgers (names of models, hosts, batches) is in one JSON block, in which no `<` can stand, and the
page writes it as text only. The content security policy lets nothing run but the scripts that are in here, by their
digests, and nothing be fetched at all.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

import msgspec

#: The charting library as it is in its npm package; assets/chart.LICENSE.md is its licence.
CHART_NAME = "chart.umd.min.js"
CHART_VERSION = "4.6.1"
CHART_SHA256 = "87364cc2b2a76a6684929e7d6b80b18a897794db38400caff1fcf1791c6925d2"
#: What could end the block, or a line of a script, within the JSON.
_ESCAPED = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def page(shown: dict[str, Any]) -> str:
    """The page that shows the report's document."""
    style, script = _asset("report.css"), _asset("report.js")
    # Without its last line, which names a file of the package that is not here.
    chart = _asset(CHART_NAME).partition("//# sourceMappingURL=")[0]
    data = msgspec.json.encode(shown).decode().translate(_ESCAPED)
    policy = (
        f"default-src 'none'; script-src {_digest(chart)} {_digest(script)}; style-src {_digest(style)};"
        " base-uri 'none'; form-action 'none'"
    )
    parts = {"@POLICY@": policy, "@STYLE@": style, "@CHART@": chart, "@DATA@": data, "@SCRIPT@": script}
    text = _asset("report.html")
    # From the template's own marks on, in their order: what is put in is not looked through again.
    built = []
    for mark, part in parts.items():
        before, _, text = text.partition(mark)
        built += [before, part]
    return "".join([*built, text])


def _asset(name: str) -> str:
    return files("farmhand.cost").joinpath("assets", name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
