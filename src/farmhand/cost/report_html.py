"""The report as one self-contained HTML file.

Values from the ledgers are in one JSON block, which cannot contain `<`, and the page inserts them as text only. The
content security policy allows only the embedded scripts, by their digests, and no network requests.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

import msgspec

#: The charting library from its npm package; its licence is assets/chart.LICENSE.md.
CHART_NAME = "chart.umd.min.js"
CHART_VERSION = "4.6.1"
CHART_SHA256 = "87364cc2b2a76a6684929e7d6b80b18a897794db38400caff1fcf1791c6925d2"
#: Characters that could end the JSON block or a line of a script.
_ESCAPED = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def page(shown: dict[str, Any]) -> str:
    """Return the HTML page for the report's document."""
    style, script = _asset("report.css"), _asset("report.js")
    # Drop its last line, which names a source map that is not included.
    chart = _asset(CHART_NAME).partition("//# sourceMappingURL=")[0]
    data = msgspec.json.encode(shown).decode().translate(_ESCAPED)
    policy = (
        f"default-src 'none'; script-src {_digest(chart)} {_digest(script)}; style-src {_digest(style)};"
        " base-uri 'none'; form-action 'none'"
    )
    parts = {"@POLICY@": policy, "@STYLE@": style, "@CHART@": chart, "@DATA@": data, "@SCRIPT@": script}
    # In one pass, so that inserted text is not searched for marks.
    return re.sub("|".join(parts), lambda mark: parts[mark[0]], _asset("report.html"))


def _asset(name: str) -> str:
    return files("farmhand.cost").joinpath("assets", name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
