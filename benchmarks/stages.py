"""Benchmarks of other stages: ingest, pretraining on stores of several sizes, linear probes, kNN, bootstrap."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression

from benchmarks.loops import Octdino, Task
from benchmarks.scans import SIZE, Scans, many, settings_of
from benchmarks.timing import Contender, interleaved, peak_memory, ratio, seconds_of
from octdino.classify.linear import fit_linear
from octdino.cohort.ingest import build_cohort
from octdino.config import ClassifySettings
from octdino.config.cohort import CohortSettings, ImageSettings
from octdino.data.csv_io import write_table
from octdino.data.schemas.csv_schemas import MANIFEST, SPLITS
from octdino.data.store import content_hash, read_images
from octdino.data.store_writer import StoreWriter
from octdino.evaluate.metrics import decision_metrics, ranking_metrics
from octdino.pretrain.pretraining_data import PretrainData, read_data
from octdino.stats.bootstrap import resample_patients
from octdino.stats.neighbors import knn_scores

GALLERY, TRAIN, VAL, QUERIES = 78_000, 6_600, 1_400, 2_000  # scans, about those of OLIVES
SCALE_ROUNDS = 7  # at least, of `scale`
Row = dict[str, Any]


def in_new_process(work: Callable[..., Any], *args: Any) -> tuple[Any, float, int]:
    """Run `work` in a new process; return its result, its seconds, and the process's peak resident bytes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, work, *args).result()


def _measured(work: Callable[..., Any], *args: Any) -> tuple[Any, float, int]:
    begin = time.perf_counter()
    result = work(*args)
    return result, time.perf_counter() - begin, peak_memory()


def ingest(scans: Scans, counts: list[int], folder: Path, workers: int) -> list[Row]:
    """Benchmark ingest: scans per second from files to a store, and memory by the number of scans."""
    cohorts: list[tuple[str, CohortSettings, int | None]] = [
        ("OLIVES layout, 496 x 504", settings_of(scans.files), None),
        *(("folder of 64 x 64", small_cohort(folder / f"small-{n}", n), n) for n in counts),
    ]
    rows = []
    for name, settings, count in cohorts:
        out = folder / "ingested"
        _, seconds, peak = in_new_process(build_cohort, settings, out, workers)
        found = len(pd.read_csv(out / "manifest.csv"))
        assert count in (None, found), (count, found)
        rows.append({"cohort": name, "scans": found, "scans/s": found / seconds, "peak memory": peak})
        shutil.rmtree(out)
    return rows


def small_cohort(folder: Path, count: int) -> CohortSettings:
    """Make a cohort of many small scans, ten per patient, all different, to show costs per scan."""
    table = folder / "table.csv"
    if not table.exists():
        shutil.rmtree(folder, ignore_errors=True)
        rng, rows = np.random.default_rng(0), []
        for index in range(count):
            path = folder / f"p{index // 10:05d}" / f"{index % 10}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(path, compress_level=0)
            rows.append({"path": str(path.relative_to(folder)), "patient": path.parent.name, "bright": index % 3 // 2})
        pd.DataFrame(rows).to_csv(table, index=False)
    image = ImageSettings(size=(64, 64), crop="none")
    return CohortSettings(name="folder", root=folder, table=table, labels=["bright"], image=image)


def scale(scans: Scans, counts: list[int], folder: Path, rounds: int) -> list[Row]:
    """Benchmark pretraining by store size: images per second in interleaved rounds, and peak memory."""
    images = read_images(scans.cohort / "scans.h5")
    stores = {count: many_scans(folder / f"scans-{count}", images, count) for count in counts}
    memory = {count: in_new_process(first_steps, store)[2] for count, store in stores.items()}
    runs = {count: scale_run(read_data(store, None, online_eval_max_scans=100)) for count, store in stores.items()}
    contenders = {str(count): Contender(partial(run.steps, 2)) for count, run in runs.items()}
    for contender in contenders.values():
        contender.seconds()
    seconds = interleaved(contenders, max(rounds, SCALE_ROUNDS))
    rows = []
    for count, store in stores.items():
        size = store.stat().st_size
        rate = 2 * runs[count].trainer.batches.batch_size / median(seconds[str(count)])
        relative = ratio(seconds[str(counts[0])], seconds[str(count)])
        rows.append({"scans": count, "images/s": rate, "relative rate": relative, "store": size})
        rows[-1] |= {"read per second": size / seconds_of(partial(read_images, store))}
        rows[-1] |= {"peak memory": memory[count], "minus the store": memory[count] - size}
    return rows


def many_scans(folder: Path, images: np.ndarray, count: int) -> Path:
    """Make a store of `count` synthetic scans with its tables, 100 scans per patient."""
    path = folder / "scans.h5"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    patient = [f"p{index // 100}" for index in range(count)]
    names = [f"s{index}" for index in range(count)]
    manifest = pd.DataFrame({"scan_id": names, "path": names, "patient": patient, "split": "train"})
    manifest = manifest.assign(pixel_hash=names, cohort="many", eye=patient, group=patient, visit="", slice=1)
    write_table(folder / "manifest.csv", manifest, MANIFEST)
    people = list(dict.fromkeys(patient))
    splits = pd.DataFrame({"fold": 0, "patient": people, "group": people, "split": "train", "rank": range(len(people))})
    write_table(folder / "splits.csv", splits, SPLITS)
    with StoreWriter(path, 1, (SIZE, SIZE)) as writer:
        for image, name in zip(many(images, count), names, strict=True):
            writer.append(image, name)
        image_settings = ImageSettings(size=(SIZE, SIZE))
        source = content_hash(image_settings, names, names)
        settings = {"image": image_settings.model_dump(mode="json")}
        writer.finish(np.arange(count), {"mean": [0.2], "std": [0.2], "source": source, "settings": settings})
    return path


def scale_run(data: PretrainData) -> Octdino:
    """Build a trainer of ResNet-18 on the smaller crops."""
    return Octdino(Task("resnet18", (96, 48), 4, batch=16), data, "float32")


def first_steps(store: Path) -> None:
    """Read the store as pretraining does, and take two steps."""
    scale_run(read_data(store, None, online_eval_max_scans=100)).steps(2)


@dataclass(frozen=True)
class Features:
    """Synthetic features of the size of OLIVES, correlated as pooled features are.

    Attributes:
        gallery: [GALLERY, 384]; train [TRAIN, 384]; val [VAL, 384].
        truth: [TRAIN + VAL, 16].
    """

    gallery: np.ndarray
    train: np.ndarray
    val: np.ndarray
    truth: np.ndarray


def features() -> Features:
    """Make features of 64 latent directions, rectified, with labels that a linear probe predicts in part."""
    rng = np.random.default_rng(0)
    mix, x = rng.normal(size=(64, 384)), rng.normal(size=(GALLERY, 64))
    gallery = np.maximum(x @ mix + 0.3 * rng.normal(size=(GALLERY, 384)), 0).astype(np.float32)
    logits = x[: TRAIN + VAL] @ rng.normal(size=(64, 16)) / 8 - 2
    truth = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))) * 1.0
    return Features(gallery, gallery[:TRAIN], gallery[TRAIN : TRAIN + VAL], truth)


def evaluation(rounds: int) -> list[Row]:
    """Benchmark linear probes, kNN and bootstrap at the size of OLIVES; probes also with scikit-learn."""
    f, settings = features(), ClassifySettings()
    probes = {
        "octdino": Contender(lambda: fit_linear(f.train, f.truth[:TRAIN], f.val, f.truth[TRAIN:], settings)),
        "scikit-learn": Contender(lambda: one_by_one(f, settings.inverse_regularization)),
    }
    seconds = interleaved(probes, 2)
    size = f"16 labels x {len(settings.inverse_regularization)} values of C, {TRAIN:,} x 384 features"
    rows = [
        {"work": f"linear probes: {size}", "seconds": median(seconds["octdino"])},
        {"work": "the same, scikit-learn one by one", "seconds": median(seconds["scikit-learn"])},
    ]
    gallery, labels = f.gallery, np.zeros((GALLERY, 16), np.float32)
    patients, queries = np.arange(GALLERY) // 800, slice(QUERIES)
    votes = [
        seconds_of(lambda: knn_scores(gallery[queries], gallery, labels, patients[queries], patients, k=20))
        for _ in "ab"
    ]
    rows.append({"work": f"kNN: {QUERIES:,} queries, gallery of {GALLERY:,}", "seconds": min(votes)})
    rows.append({"work": "bootstrap: 20 arms x 16 labels x 1,000 resamples, 2,400 scans", "seconds": bootstrap(20, 16)})
    return rows


def one_by_one(f: Features, values_of_c: list[float]) -> None:
    """Fit one scikit-learn regression per label and value of C, as a simple script would."""
    z = (f.train - f.train.mean(0)) / f.train.std(0)
    for c in values_of_c:
        for y in f.truth[:TRAIN].T:
            LogisticRegression(C=c, max_iter=500).fit(z, y)


def bootstrap(arms: int, labels: int) -> float:
    """Return the seconds of all metrics of `arms` and `labels` in 1,000 bootstrap resamples of 22 test patients."""
    rng = np.random.default_rng(0)
    patient, times = np.sort(rng.integers(0, 22, 2400)), resample_patients(22, 1000, 0)
    truth, score = rng.random((labels, 2400)) < 0.2, rng.random((arms, labels, 2400))

    def work() -> None:
        for arm in range(arms):
            for label in range(labels):
                ranking_metrics(truth[label], score[arm, label], patient, times)
                decision_metrics(truth[label], score[arm, label] > 0.5, patient, times)

    return seconds_of(work)
