"""Vega in a page: its script and licences, and a policy that lets a page run the scripts it was made with and no other.

What lives here: what every page with interactive charts needs, whatever it draws. What does not: any chart. Pages without
interactive charts hold no script and need none of this.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from markupsafe import Markup

# The Vega-Lite of the bundle is the one of the Vega whose licences stand in vega.licences.txt.
_VEGA_LITE = "6.4"


@dataclass(frozen=True)
class Scripts:
    """`markup` goes to the end of the body, `policy` is the page's Content-Security-Policy."""

    policy: str
    markup: Markup


def scripts(programs: Sequence[str] = ()) -> Scripts:
    """The programs, in their order, as script elements and the policy under which these run and nothing else does.

    A program must not hold "</script" (ValueError). Without any, the page runs no script.
    """
    for program in programs:
        if re.search(r"</script|<!--", program, re.IGNORECASE):
            raise ValueError("a script that stands in a page must not hold the end of a script")
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in programs]
    allowed = "".join(f" 'sha256-{one}'" for one in hashes)
    return Scripts(
        policy="default-src 'none'; style-src 'unsafe-inline'" + (f"; script-src{allowed}" if allowed else ""),
        markup=Markup("\n").join(Markup("<script>{}</script>").format(Markup(one)) for one in programs),
    )


@cache
def vega() -> str:
    """Vega as a script that defines `vegaEmbed`, with the licences of all that is in it.

    Bundled by vl-convert-python, without a network; takes seconds, once a process.
    """
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)
    licences = files("segflow.pages").joinpath("vega.licences.txt").read_text(encoding="utf-8")
    return f"/*!\n{licences}*/\n{bundle}"
