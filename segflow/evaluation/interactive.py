"""What a page needs so that its charts become interactive: the forms of charts for Vega, and the script that draws them.

What does not live here: the drawings and their data, which are in the page already (charts.py); without scripts, and in
print, the drawings are what one sees.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from segflow.pages.vega import Scripts, scripts, vega

_FORMS = ("intervals", "curve")


def page_scripts(*charts: Markup) -> Scripts:
    """What makes these charts interactive, each of which is empty or a plot; a page without any plot runs no script."""
    return _drawing() if any(charts) else scripts()


@cache
def _drawing() -> Scripts:
    here = files("segflow.evaluation")
    forms = {form: json.loads(here.joinpath(f"{form}.vega.json").read_text(encoding="utf-8")) for form in _FORMS}
    found = scripts([vega(), here.joinpath("charts.js").read_text(encoding="utf-8")])
    data = Markup('<script type="application/json" id="chart-forms">{}</script>\n').format(htmlsafe_json_dumps(forms))
    return Scripts(found.policy, data + found.markup)
