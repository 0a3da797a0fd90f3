"""Rendering of the HTML pages of this room: escaped values, no missing ones, one style sheet."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from octdino import __version__


def render_page(template: str, **values: Any) -> str:
    """Return the page that a template of this folder makes of `values`; `version` is added."""
    loader = PackageLoader("octdino.inference", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(version=__version__, **values)
