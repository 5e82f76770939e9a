"""Pages of HTML: one file that loads nothing, and runs only what its policy names.

All pages share the frame ``page.html``. What tokens and files hold is never markup: the templates
escape text, and data travels as JSON in which no ``<`` is left.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

from jaxlens import __version__, errors
from jaxlens.view import printable
from jaxlens.view.figures import palette

_PACKAGE = "jaxlens.view"


def page(
    template: str,
    *,
    title: str,
    styles: Sequence[str],
    scripts: Sequence[str] = (),
    data: Any = None,
    package: str = _PACKAGE,
    **values: Any,
) -> str:
    """A page from its template, which extends ``page.html``.

    Args:
        template: Name of an asset.
        title: Of the window.
        styles: Texts of CSS.
        scripts: Texts of JavaScript; a page without any has no data either.
        data: What the scripts read, for JSON.
        package: Where the template lies.
        values: What else the template needs; text is escaped.

    Raises:
        MissingError: jinja2 is not installed.
    """
    jinja2 = errors.require_package("jinja2", "view", "pages")
    from markupsafe import Markup

    style, script = "\n".join(styles), "\n".join(scripts)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: asset(name, _home(name, template, package))),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
    )
    return environment.get_template(template).render(
        **values,
        title=title,
        version=__version__,
        policy=_policy([script] if scripts else [], [style]),
        style=Markup(style),
        script=Markup(script),
        data=Markup(_embedded(data)),
    )


def _home(name: str, template: str, package: str) -> str:
    return package if name == template else _PACKAGE


def asset(name: str, package: str = _PACKAGE) -> str:
    """A file that is shipped for pages, from the folder ``assets`` of a package."""
    return (importlib.resources.files(package) / "assets" / name).read_text("utf-8")


def _printable(value: Any) -> Any:
    """A value of a page without what is invisible or changes the direction of writing."""
    return printable.lines(value) if type(value) is str else value


def _policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Content-Security-Policy that allows these inline texts, images in the page, and no more."""
    rules = ["default-src 'none'"]
    for rule, texts in (("script-src", scripts), ("style-src", styles)):
        digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        sources = [f"'sha256-{digest}'" for digest in digests] or ["'none'"]
        rules.append(" ".join([rule, *sources]))
    return "; ".join([*rules, "img-src data:", "base-uri 'none'", "form-action 'none'"])


def _embedded(document: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or a line."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def shades(name: str, light: Sequence[str], dark: Sequence[str]) -> str:
    """A class for each colour of a ramp, for both themes; paper is light.

    Args:
        name: Of the classes, which are numbered.
        light: Grounds in the light theme.
        dark: Grounds in the dark theme.
    """

    def rules(selector: str, grounds: Sequence[str]) -> str:
        return "\n".join(
            f"{selector}.{name}{i} {{ background: {ground}; color: {palette.ink(ground)}; }}"
            for i, ground in enumerate(grounds)
        )

    in_the_dark = rules('[data-theme="dark"] ', dark)
    return f"{rules('', light)}\n@media screen {{\n{in_the_dark}\n}}"
