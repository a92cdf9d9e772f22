"""What the pages share: one style sheet, how numbers are spelled, the escaping of every value, and the writing of the file.

What does not live here: any page. A page loads nothing from elsewhere, and runs no script unless it shows interactive charts
(vega.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def environment(package: str) -> Environment:
    """Renders the templates of `package`; `page.css.jinja` and `macros.jinja` are there to be included by all."""
    found = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader(__name__, ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(percent=percent, figure=figure)
    return found


def write_page(folder: str, name: str, html: str) -> Path:
    """Write a page below ``folder``, whole or not at all, for people to open and send."""
    file = Path(folder) / name
    if not Path(os.path.abspath(file)).is_relative_to(os.path.abspath(folder)):
        raise ValueError(f"the page {name!r} leaves {folder}")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text(html, encoding="utf-8")
    return part.replace(file)


def light_colours() -> str:
    """The colours of a light page as CSS, for a drawing that stands on its own."""
    style = environment(__name__).get_template("page.css.jinja").render()
    return style[style.index(":root") : style.index("}") + 1]


def escaped(text: str) -> str:
    """The text in one line, with nothing in it that Markdown or HTML would read as markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))


def percent(value: float, digits: int = 1) -> str:
    """A share in [0, 1] in hundredths."""
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def figure(value: float, digits: int = 4) -> str:
    """A number with so many decimals and a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")
