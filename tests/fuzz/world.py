"""One tiny cohort taken through every stage: the inputs that the fuzz suite damages, and what each verb is run with."""

import io
import json
import os
import pkgutil
import shutil
import signal
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from PIL import Image

from octdino import cli
from octdino.errors import EXIT_STOPPED
from tests.small import write_small_cohort

MODEL = json.dumps({"timm": "resnet18", "args": {"channels": [8, 8, 8, 8]}})
VIEWS = ["--augment.global-size", "16", "--precision", "float32"]
NETWORK = ["--backbone", "b", "--model", MODEL]
BRIEF = ["--batch-size", "8", "--epochs", "1", "--dino.prototypes", "16", "--dino.hidden-dim", "16", *VIEWS]
BRIEF += ["--augment.local-size", "16", "--augment.local-views", "1"]
IMAGES = ["--image.size", "24", "24", "--workers", "1"]
FEW = ["--resamples", "100", "--min-positive-patients", "1", "--min-test-patients", "2"]

NEW_SCANS = "listed.csv"  # new scans by a table
STORE, TABLE = "results/c/cohort/scans.h5", "results/c/cohort/manifest.csv"
DINO = "results/c/pretrain/dino/b/fold0-seed0"
EMBEDDED = "results/c/embed/dino/b/fold0-seed0"
LINEAR, TUNED, CLINICAL = (
    f"results/c/classify/{arm}/f1/fold0-seed0" for arm in ("dino-linear/b", "scratch-finetune/b", "clinical/none")
)
COHORT = ["results/c/cohort/*"]
TABLES = ["results/c/cohort/*.csv"]


@dataclass(frozen=True)
class Verb:
    """How one verb is run.

    Attributes:
        argv: the command, without `--out` where `out` is given.
        inputs: patterns of the files that it reads; none: only its settings and flags are damaged.
        out: what it writes, below the world's folder.
        weight: how often it is drawn.
    """

    argv: list[str]
    inputs: list[str]
    out: str = ""
    weight: int = 4

    def command(self) -> list[str]:
        """The whole command."""
        return [*self.argv, *(["--out", self.out] if self.out else [])]


def _verbs() -> dict[str, Verb]:
    store = ["--store", STORE, *NETWORK]
    explained = ["--embeddings", f"{EMBEDDED}/embeddings.h5", "--classifier", LINEAR, "--masks-root", "phantom"]
    explained += ["--split", "all", "--scans", "4", "--retrieval-gallery", "10"]
    explained += ["--examples", "1", "--neighbors", "1", "--resamples", "100"]
    exclusive = ["--store", "exclusive/scans.h5", *NETWORK, *VIEWS]
    tuned = ["--epochs", "2", "--min-steps", "2", "--batch-size", "8"]
    finetune = Verb(["classify", "scratch-finetune", *store, *VIEWS, *tuned], COHORT, "out/finetune", 4)
    follows = json.dumps({"next": {"method": "dino", "init": DINO}})
    return {
        "phantom": Verb(["phantom", "--workers", "1"], [], "out/phantom", 1),
        "inspect": Verb(
            ["inspect", "files", "--size", "laptop", "--workers", "1", "--sample", "8", "--force"], ["files/*"],
            "out/inspect", 6,
        ),
        "folder": Verb(["cohort", "folder", "--root", "files", *IMAGES], ["files/*"], "out/folder", 12),
        "olives": Verb(["cohort", "olives", "--root", "phantom", *IMAGES], ["phantom/**/*"], "out/olives", 5),
        "archive": Verb(["cohort", "olives", "--root", "archives", *IMAGES], ["archives/*"], "out/archive", 4),
        "split": Verb(
            ["cohort", "olives", "--root", "phantom", *IMAGES, "--split.file", "splits.csv"],
            ["splits.csv"], "out/olives", 4,
        ),
        "pretrain": Verb(["pretrain", "dino", *store, *BRIEF], COHORT, "out/pretrain", 6),
        "resume": Verb(["pretrain", "dino", *store, *BRIEF], ["out/pretrain/state/*"], "out/pretrain", 4),
        "next": Verb(
            ["pretrain", "next", *store, *BRIEF, "--variants", follows], [f"{DINO}/backbone.*"], "out/next", 4
        ),
        "embed": Verb(
            ["embed", "dino", *store, "--size", "16", "--pretrained", DINO],
            [*COHORT, f"{DINO}/backbone.*"], "out/embed", 8,
        ),
        "linear": Verb(
            ["classify", "dino-linear", *store, "--embeddings", f"{EMBEDDED}/embeddings.h5"],
            [*COHORT, f"{EMBEDDED}/*"], "out/linear", 12,
        ),
        "finetune": finetune,
        "resume_finetune": replace(finetune, inputs=["out/finetune/state/*"]),
        "exclusive": Verb(["classify", "scratch-finetune", *exclusive, *tuned], ["exclusive/*"], "out/exclusive", 5),
        "weights": Verb(
            ["embed", "imagenet", *store, "--size", "16", "--weights", "weights.pth"], ["weights.pth"],
            "out/weights", 4,
        ),
        "clinical": Verb(["clinical", "--store", STORE], TABLES, "out/clinical", 10),
        "evaluate": Verb(
            ["evaluate", LINEAR, TUNED, CLINICAL, "--manifest", TABLE, *FEW],
            [*COHORT, *(f"{arm}/{name}" for arm in (LINEAR, TUNED, CLINICAL)
                        for name in ("predictions.csv", "classifier.json"))], "out/evaluate", 12,
        ),
        "audit": Verb(
            ["audit", "--store", STORE, DINO, LINEAR, CLINICAL],
            [*COHORT, f"{DINO}/backbone.*", f"{LINEAR}/*", f"{CLINICAL}/*"], "out/audit", 12,
        ),
        "verdict": Verb(["verdict", "results/c/audit/findings.csv"], ["results/c/audit/findings.csv"], "", 6),
        "explain": Verb(
            ["explain", "dino", *store, "--pretrained", DINO, *explained],
            [*COHORT, f"{DINO}/backbone.*", f"{EMBEDDED}/*", f"{LINEAR}/classifier.*", "phantom/masks/**/*"],
            "out/explain", 4,
        ),
        "model": Verb(
            ["models", "results/c", "--arm", "dino-linear"],
            [*COHORT, f"{DINO}/backbone.*", f"{LINEAR}/*", f"{TUNED}/*", "results/c/evaluate/metrics.csv"],
            "out/model", 6,
        ),
        "models": Verb(["models", "results/c"], [f"{LINEAR}/*", "results/c/evaluate/metrics.csv"], "", 3),
        "watch": Verb(["watch", "results"], ["logs/c/**/*", "results/c/benchmarks/*", f"{DINO}/history.csv"], "", 3),
        "predict": Verb(
            ["predict", "model", "files", NEW_SCANS, "--workers", "1", "--overlays"],
            ["files/*.*", "model/*", NEW_SCANS], "out/predict", 12,
        ),
        "resume_predict": Verb(
            ["predict", "model", "files", "--workers", "1"], ["out/resumed/state/*"], "out/resumed", 3
        ),
        "embed_scans": Verb(["embed", "model", STORE], [*COHORT, "model/*"], "out/embedded", 4),
        "neighbors": Verb(
            ["neighbors", "model", "files", "--gallery", "gallery/embeddings.h5", "--workers", "1"],
            ["files/*.*", "model/*", "gallery/*"], "out/neighbors", 6,
        ),
        "export": Verb(["export", "model", "--to", "safetensors"], ["model/*"], "out/export", 4),
        "plan": Verb(["plan", "--no-trial", "--configfile", "mine.yaml"], ["files/*", "mine.yaml"], "", 1),
        "presets": Verb(["presets", "olives"], [], "", 1),
        "completion": Verb(["completion", "bash"], [], "", 1),
        "report": Verb(
            ["report", "--results", "results/c", "--config", "config.yaml"],
            ["results/c/**/*", "config.yaml"], "out/report/report.html", 8,
        ),
    }  # fmt: skip


VERBS = _verbs()


def run(*argv: str) -> int:
    """Run a command in this process; its exit code, also where argparse ends it."""
    try:
        return cli.main(list(argv))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def done(*argv: str) -> None:
    """Run a command that must succeed."""
    code = run(*argv)
    assert code == 0, (code, argv)


def build(root: Path) -> None:
    """Fill `root`, which is the working directory, with files and finished runs; each verb has earlier outputs."""
    done("phantom", "--out", "phantom", "--patients", "8", "--visits", "2", "--slices", "1", "--workers", "1")
    for path in sorted(path for path in (root / "phantom").rglob("*") if path.suffix in (".png", ".tif")):
        _shrink(path)
    _write_archives(root / "archives", root / "phantom")
    _write_folder(root / "files")
    write_small_cohort(root / "exclusive", patients=12, scans=2, size=16, exclusive=True)
    done("cohort", "phantom", "--root", "phantom", "--out", str(Path(STORE).parent), *IMAGES)
    shutil.copy(root / Path(STORE).with_name("splits.csv"), root / "splits.csv")
    store = ["--store", STORE, *NETWORK]
    done("pretrain", "dino", *store, *BRIEF, "--out", DINO)
    done("embed", "dino", *store, "--size", "16", "--pretrained", DINO, "--out", EMBEDDED)
    done("classify", "dino-linear", *store, "--embeddings", f"{EMBEDDED}/embeddings.h5", "--out", LINEAR)
    done("classify", "scratch-finetune", *store, *VIEWS, "--epochs", "1", "--min-steps", "2", "--out", TUNED)
    done("clinical", "--store", STORE, "--out", CLINICAL)
    done("evaluate", LINEAR, TUNED, CLINICAL, "--manifest", TABLE, *FEW, "--out", "results/c/evaluate")
    done("audit", "--store", STORE, DINO, LINEAR, CLINICAL, "--out", "results/c/audit")
    done(*VERBS["explain"].argv, "--out", "results/c/explain/dino/b/seed0")
    _write_benchmarks(root / "results/c/benchmarks")
    _write_logs(root / "logs/c")
    (root / "config.yaml").write_text("cohort: {name: phantom}\nevaluate: {reference: scratch-finetune}\n")
    (root / "mine.yaml").write_text("cohort: {name: folder, title: mine, root: files, image: {size: [24, 24]}}\n")
    import torch

    from octdino.config import ModelSettings
    from octdino.models.backbones import create_backbone

    model = ModelSettings.model_validate(json.loads(MODEL))
    torch.save(create_backbone(model, 1, 16).state_dict(), root / "weights.pth")
    done("models", "results/c", "--arm", "dino-linear", "--out", "model")
    done("embed", "model", STORE, "--out", "gallery")
    (root / NEW_SCANS).write_text("path,patient,eye\nfiles/0.png,a,OD\nfiles/1.tif,a,OS\n")
    for name, verb in VERBS.items():
        if name not in ("phantom", "resume", "pretrain", "resume_predict"):
            done(*verb.command())
    with _sigterm_in("octdino.inference.predict.predict_part"):
        assert run(*VERBS["resume_predict"].command()) == EXIT_STOPPED
    assert run(*VERBS["pretrain"].command(), "--max-minutes", "0") == EXIT_STOPPED  # leaves a checkpoint
    with _sigterm_in("octdino.classify.finetune.Finetune._validate"):
        assert run(*VERBS["resume_finetune"].command()) == EXIT_STOPPED
    for pattern in VERBS["resume_finetune"].inputs:
        assert list(root.glob(f"{pattern}.pt")), pattern


@contextmanager
def _sigterm_in(function: str) -> Iterator[None]:
    """Within the block, SIGTERM arrives after a call of this function, given by its dotted name."""
    called = pkgutil.resolve_name(function)

    def call_and_stop(*args: Any) -> Any:
        result = called(*args)
        os.kill(os.getpid(), signal.SIGTERM)
        return result

    with patch(function, call_and_stop):
        yield


def _shrink(path: Path) -> None:
    try:
        with Image.open(path) as image:
            small = image.resize((image.width // 12, image.height // 12), Image.Resampling.NEAREST)
    except OSError:  # one of the phantom's bad files
        return
    small.save(path)


def _write_archives(folder: Path, tree: Path) -> None:
    """The tree as OLIVES is published: one zip that holds one for each trial."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "OLIVES.zip", "w") as outer:
        for trial, name in (("TREX DME", "TREX_DME.zip"), ("Prime_FULL", "Prime_FULL.zip")):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as inner:
                for path in sorted((tree / trial).rglob("*.tif")):
                    inner.write(path, path.relative_to(tree))
            outer.writestr(f"OLIVES/{name}", buffer.getvalue())
    for table in (tree / "OLIVES_Dataset_Labels").rglob("*"):
        if table.is_file():
            shutil.copy(table, folder / table.name)


def _write_folder(folder: Path) -> None:
    """Anyone's own scans: a table and images of several kinds."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for index in range(20):
        name = f"{index}.{('png', 'tif', 'jpg', 'bmp')[index % 4]}"
        Image.fromarray(rng.integers(0, 255, (24, 20), np.uint8)).save(folder / name)
        rows.append({"path": name, "patient": f"p{index // 2}", "eye": "OD", "visit": 1, "cst": 300 + index})
        rows[-1] |= {"bcva": 70, "DME": index % 2, "IRF": int(index % 3 == 0)}
    pd.DataFrame(rows).to_csv(folder / "scans.csv", index=False)


def _write_benchmarks(folder: Path) -> None:
    (folder / "pretrain").mkdir(parents=True)
    (folder / "pretrain" / "dino.tsv").write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t900.1\n")
    (folder / "pretrain.dino.b.fold0-seed0.tsv").write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t900.1\n")


def _write_logs(folder: Path) -> None:
    (folder / "pretrain").mkdir(parents=True)
    line = "2026-01-01 10:00:00 octdino.pretrain: epoch 1/2 loss 3.4 210 img/s, data wait 0.1 %, 1 min 5 s left\n"
    for seed in range(2):
        (folder / "pretrain" / f"dino.b.fold0-seed{seed}.log").write_text(line)
