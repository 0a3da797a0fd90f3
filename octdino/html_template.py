"""Rendering of HTML pages from templates in the package: escaped values, and no missing ones."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from octdino import __version__


def render_template(package: str, template: str, **values: Any) -> str:
    """Return the page that a template in a package's folder makes of `values`; `version` is added."""
    environment = Environment(loader=PackageLoader(package, "."), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(version=__version__, **values)
