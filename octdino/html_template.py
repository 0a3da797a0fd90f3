"""Rendering of HTML pages from templates in the package: escaped values, and no missing ones."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from octdino import __version__


def page_environment(*folders: str) -> Environment:
    """Return the environment of a page of results: templates of these folders of the package, the first first."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("octdino", folder) for folder in folders]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["breakable"] = lambda words: escape(words).replace("_", Markup("_<wbr>"))
    environment.filters["capitalised"] = lambda words: words[:1].upper() + words[1:]
    return environment


def render_template(package: str, template: str, **values: Any) -> str:
    """Return the page that a template in a package's folder makes of `values`; `version` is added."""
    environment = Environment(loader=PackageLoader(package, "."), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(version=__version__, **values)
