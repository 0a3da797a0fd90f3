"""Reference of the Python interface: the public functions and classes, by Sphinx's autodoc."""

FUNCTIONS = ("octdino.load", "octdino.results")
CLASSES = ("octdino.inference.api.Predictor", "octdino.inference.run_results.RunResults")
ERRORS = ("octdino.errors.UserError",)


def markdown() -> str:
    """Return the autodoc directives of the public interface, in MyST."""
    parts = ["## Functions", "", *_directives("autofunction", FUNCTIONS, ())]
    parts += ["## What they return", "", *_directives("autoclass", CLASSES, (":members:", ":member-order: bysource"))]
    parts += ["## Errors", "", *_directives("autoclass", ERRORS, ())]
    return "\n".join(parts)


def _directives(kind: str, names: tuple[str, ...], options: tuple[str, ...]) -> list[str]:
    lines = ["```{eval-rst}"]
    for name in names:
        lines += [f".. {kind}:: {name}", *(f"   {option}" for option in options), ""]
    return [*lines, "```", ""]
