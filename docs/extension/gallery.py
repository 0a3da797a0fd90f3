"""Gallery of figures of a finished run on the phantom, copied from its results folder."""

import html
import re
import shutil
from pathlib import Path

from octdino.data.schemas.metadata import ExplainMetadata, read_metadata
from octdino.data.store import read_header
from octdino.errors import UserError

WITHOUT = """\
This copy of the site was built without figures. They are taken from the results of the default run:

```text
make                                      # the default run, if it was not run yet
make docs RESULTS=results/phantom         # this site with its figures
```
"""
CAPTIONS = {  # file in evaluate/: section of the gallery
    "difference": "What the page answers",
    "comparison": "What the page answers",
    "label_efficiency": "What the page answers",
    "patients_needed": "What the page answers",
    "label_difference": "Per label",
    "labels": "Per label",
    "roc": "Per label",
    "pr": "Per label",
    "reliability": "Calibration",
    "calibration": "Calibration",
    "subgroups": "Subgroups",
}


def prepare(results: Path | None, folder: Path) -> str:
    """Copy the figures of results/{cohort} into `folder`, which is emptied; return the gallery's Markdown.

    Args:
        results: None: without figures.

    Raises:
        UserError: no finished run, or the scans are not the phantom's.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if results is None:
        return WITHOUT
    if (kind := cohort_kind(results)) != "phantom":  # pictures of patients have no place in a documentation
        raise UserError(f"{results}: a cohort of kind {kind}; expected the phantom, whose figures show no patient")
    folder.mkdir()
    parts: dict[str, list[str]] = {}
    for name, section in CAPTIONS.items():
        path = results / "evaluate" / f"{name}.svg"
        if path.is_file():
            parts.setdefault(section, []).append(_figure(path, folder, "evaluate", f"evaluate/{name}.svg"))
    for path in sorted(results.glob("report/*.svg")):
        parts.setdefault("Training", []).append(_figure(path, folder, "report", f"report/{path.name}"))
    for path in sorted(results.glob("explain/*/*/*/explain.json")):
        place = path.parent.relative_to(results)
        for figure in read_metadata(path, ExplainMetadata, "explain").figures:
            file, flat = path.with_name(figure.file), "-".join(place.parts)
            shown = _figure(file, folder, flat, f"{place}/{figure.file}", figure.caption)
            parts.setdefault("Attention, maps and neighbors", []).append(shown)
    if not parts:
        raise UserError(f"{results}: no figures; expected a finished run")
    return "\n".join(line for section, figures in parts.items() for line in (f"## {section}", "", *figures))


def cohort_kind(results: Path) -> str | None:
    """Return the kind of the cohort of a run, such as phantom."""
    store = results / "cohort" / "scans.h5"
    return read_header(store).checked_attributes(store).settings.name


def _figure(path: Path, folder: Path, place: str, where: str, text: str = "") -> str:
    """Copy one figure; return the Markdown that shows it with its file's name and its description or `text`."""
    copy = folder / f"{place}-{path.name}"
    if path.suffix == ".svg":
        drawing = path.read_text(encoding="utf-8")
        described = re.search(r'aria-label="([^"]*)"', drawing)
        text = text or (html.unescape(described[1]) if described else "")
        # The site's own light and dark switch does not reach into an image: dark ink, and a white ground by style.css.
        drawing = re.sub(r"@media screen and \(prefers-color-scheme:dark\)\{.*?\}\}", "", drawing)
        copy.write_text(drawing, encoding="utf-8")
    else:
        shutil.copyfile(path, copy)
    alt = text.replace("[", "(").replace("]", ")") or where
    return f"**`{where}`** {text}\n\n![{alt}](_gallery/{copy.name})\n"
