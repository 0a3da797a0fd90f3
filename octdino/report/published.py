"""Sentences about the published weights that arms start from: origin, license, what is not known of them."""

from typing import Any

from octdino.config import Arm
from octdino.config.weights_layouts import LAYOUTS
from octdino.data.schemas.published_part import continued_part


def published_sentence(metadata: dict[str, Any]) -> str:
    """Return what classifier.json contains on published weights, in sentences; empty where there are none."""
    found = metadata.get("published") or {}
    if not found:
        return ""
    start, adapter = Arm.named(str(metadata["arm"])).init, metadata.get("adapter")
    adapted = f" Only adapters were trained beside the head ({adapter}), merged into the weights." if adapter else ""
    return f"{start} starts from published weights: {found.get('file') or 'timm download'}{_known(found)}{adapted}"


def continued_sentence(metadata: dict[str, Any]) -> str:
    """Return what backbone.json contains on published weights that pretraining continued from; empty without any."""
    found = continued_part(metadata, "backbone.json")
    if found is None:
        return ""
    return f"{metadata['name']} continues from published weights{_known(found.model_dump())}"


def _known(found: dict[str, Any]) -> str:
    """Return what is known of published weights, the second half of a sentence, and what is not."""
    layout = LAYOUTS.get(str(found.get("layout")))
    kind = f" in the layout of {layout.title}" if layout and found.get("layout") != "auto" else ""
    data = f", trained on {found['data']}" if found.get("data") else ""
    sha256 = f", SHA-256 {str(found['sha256'])[:12]}…" if found.get("sha256") else ""
    return (
        f"{kind}{data}{sha256}; license: {found.get('license') or 'not given'}, which binds what is made of them, too. "
        "Whether they were trained on scans of this cohort is not known here."
    )
