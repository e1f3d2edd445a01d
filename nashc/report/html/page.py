"""One HTML file out of a script, a style sheet, the plotting library and data; it needs no network.

Names in the data come from files that nobody vouches for. They reach the page as JSON in a script element of another
type, and the scripts put them into text nodes alone. The content security policy lets nothing run but the scripts that
are written here, which it knows by their hashes, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
from functools import cache
from importlib import resources
from importlib.metadata import version

import msgspec

CHARTS = "echarts.min.js"
"""Apache ECharts 6.1.0 (Apache-2.0), `dist/echarts.min.js` of the npm package as it is; echarts.LICENSE beside it."""


def page(title: str, kind: str, data: object) -> str:
    """The page of a kind ("design", "diff", "pareto") that shows `data`."""
    scripts = [_asset(name) for name in (CHARTS, "page.js", "charts.js", f"{kind}.js")]
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts)
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
    body = "\n".join(f"<script>{text}</script>" for text in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="nashc {version("nashc")}">
<title>{html.escape(title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<noscript>A script inside this file draws the report; nashc report --markdown prints the figures.</noscript>
<main id="page"></main>
<script type="application/json" id="data">{_json(data)}</script>
{body}
</body>
</html>
"""


def _json(data: object) -> str:
    """JSON that cannot end the element around it: HTML gives `<` no meaning inside a string if there is none."""
    return msgspec.json.encode(data).decode().replace("<", "\\u003c").replace("\u2028", "\\u2028")


@cache
def _asset(name: str) -> str:
    return (resources.files("nashc.report.html") / "assets" / name).read_text(encoding="utf-8")


@cache
def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
