"""Sphinx configuration of the documentation: `make docs` writes it to docs/_build/html."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for docs.extension

from octdino import __version__

project = "octdino"
author = "The octdino contributors"
copyright = author  # noqa: A001  Sphinx's name
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docs.extension",
]
exclude_patterns = ["_build", "_gallery", "extension"]
root_doc = "index"
language = "en"
smartquotes = False  # "--flag" stays as it is typed
default_role = "code"  # single backticks of docstrings

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(pd|np|pandas|numpy|PIL|pathlib|collections)\..*|Path|Pictures?|Ensemble|.*\.Ensemble")
]
toc_object_entries = False

html_theme = "furo"
html_title = "octdino"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5d7a", "color-brand-content": "#0b5d7a"},
    "dark_css_variables": {"color-brand-primary": "#6fc3df", "color-brand-content": "#6fc3df"},
}
copybutton_exclude = ".linenos, .gp, .go"
