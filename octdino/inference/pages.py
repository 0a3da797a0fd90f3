"""Rendering of the HTML pages of this room."""

from typing import Any

from octdino.html_template import render_template


def render_page(template: str, **values: Any) -> str:
    """Return the page that a template of this folder makes of `values`; `version` is added."""
    return render_template("octdino.inference", template, **values)
