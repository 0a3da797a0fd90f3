"""Stands in for `octdino` in tests of the workflow: it writes what a verb declares, at once, and notes the call."""

import os
import sys
import time
from pathlib import Path

FILES = {
    "phantom": ["Biomarker_Clinical_Data_Images.csv"],
    "cohort": ["manifest.csv", "quarantine.csv", "splits.csv", "scans.h5"],
    "pretrain": ["backbone.safetensors", "backbone.json", "history.csv"],
    "embed": ["embeddings.h5"],
    "classify": ["predictions.csv", "classifier.safetensors", "classifier.json"],
    "protocol": ["protocol.csv", "protocol.json"],
    "quoted": ["replication.csv", "replication.md"],
    "clinical": ["predictions.csv", "classifier.json"],
    "evaluate": ["metrics.csv", "comparison.csv", "subgroups.csv", "label_efficiency.csv", "power.csv"]
    + [f"{figure}.svg" for figure in ("comparison", "difference", "label_efficiency", "roc", "pr")]
    + [f"{figure}.svg" for figure in ("reliability", "calibration", "subgroups", "labels", "label_difference")]
    + ["patients_needed.svg"],
    "score": ["scores.csv", "scores.json"],
    "external": ["external.csv", "external.json", "external.svg"],
    "audit": ["findings.csv", "audit.json"],
    "explain": ["overlap.csv", "jaccard.csv", "jaccard_images.csv", "retrieval.csv", "embedding.csv"],
    "models": ["model.json", "backbone.safetensors", "head.safetensors", "density.safetensors"],
}
FILES["explain"] += ["maps.safetensors", "explain.json"]


def main() -> None:
    """Write the outputs of the verb; their content is the call, so that another call gives other content."""
    verb = sys.argv[1]
    settings = str(Path(".snakemake", "octdino-settings"))  # files whose content is what counts
    call = " ".join(Path(word).read_text() if word.startswith(settings) else word for word in sys.argv[1:])
    with Path("calls.txt").open("a") as calls:
        calls.write(call + "\n")
    if verb == os.environ.get("STUB_FAILS"):
        print(os.environ.get("STUB_SAYS", "the reason of the failure"), file=sys.stderr)
        sys.exit(3)
    if verb == os.environ.get("STUB_WAITS"):
        time.sleep(60)
    if verb == "verdict":
        print("passed: no finding is open; not checkable: patient")
        return
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    beside = [out.with_name(f"{card}.md") for card in ("data_card", "model_card", "checklist", "methods")]  # the page's
    beside.append(out.with_name("references.bib"))
    for path in [out / name for name in FILES[verb]] if verb in FILES else [out, *beside]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(call + "\n")


main()
