"""Which method each pretraining run is of: a variant of a method has a name of its own."""

from pathlib import Path

from octdino.data.schemas.metadata import BackboneMetadata, read_metadata


def pretrained_methods(results: Path) -> dict[str, str]:
    """Return the method of every run below results/{cohort}/pretrain, by the name of the run.

    Raises:
        UserError: a backbone.json is damaged.
    """
    found: dict[str, str] = {}
    for path in sorted(results.glob("pretrain/*/*/*/backbone.json")):
        name = path.parts[-4]
        if name not in found and (method := read_metadata(path, BackboneMetadata, "pretrain").method.method):
            found[name] = method
    return found
