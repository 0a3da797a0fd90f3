"""The other stages: reading a cohort in, training on cohorts of other sizes, and evaluating."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from benchmarks.loops import Octdino, Task
from benchmarks.scans import SIZE, Scans, many, settings_of
from benchmarks.timing import Contender, by_turns, peak_memory, ratio, seconds_of
from octdino.classify.linear import fit_linear
from octdino.cohort.ingest import build_cohort
from octdino.config import ClassifySettings
from octdino.config.cohort import CohortSettings, ImageSettings
from octdino.data.csv_io import MANIFEST, SPLITS, write_table
from octdino.data.store import StoreWriter, content_hash, read_store
from octdino.evaluate.metrics import decision_metrics, ranking_metrics
from octdino.pretrain.pretraining_data import Data, read_data
from octdino.stats.bootstrap import resample_patients
from octdino.stats.neighbors import knn_scores

Row = dict[str, Any]


def alone(work: Callable[..., Any], *args: Any) -> tuple[Any, float, int]:
    """What `work` returns in a new process, its seconds there, and the process's peak resident bytes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_watched, work, *args).result()


def _watched(work: Callable[..., Any], *args: Any) -> tuple[Any, float, int]:
    begin = time.perf_counter()
    result = work(*args)
    return result, time.perf_counter() - begin, peak_memory()


def ingest(scans: Scans, counts: list[int], folder: Path, workers: int) -> list[Row]:
    """Scans a second from files of 496 x 504 px to a store, and the memory that the number of scans costs."""
    cohorts: list[tuple[str, CohortSettings, int | None]] = [
        ("OLIVES form, 496 x 504", settings_of(scans.files), None),
        *(("folder of 64 x 64", small_pictures(folder / f"pictures-{n}", n), n) for n in counts),
    ]
    rows = []
    for name, settings, count in cohorts:
        out = folder / "ingested"
        _, seconds, peak = alone(build_cohort, settings, out, workers)
        found = len(pd.read_csv(out / "manifest.csv"))
        assert count in (None, found), (count, found)
        rows.append({"cohort": name, "scans": found, "scans/s": found / seconds, "peak memory": peak})
        shutil.rmtree(out)
    return rows


def small_pictures(folder: Path, count: int) -> CohortSettings:
    """A cohort of many small pictures, ten a patient, no two alike: what grows with the number of scans is seen."""
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
    """Images a second of one run on stores of several sizes, by turns; and the memory of a run from its store on."""
    images = read_store(scans.cohort / "scans.h5").images
    stores = {count: many_scans(folder / f"scans-{count}", images, count) for count in counts}
    memory = {count: alone(first_steps, store)[2] for count, store in stores.items()}
    runs = {count: scale_run(read_data(store, None, watched=100)) for count, store in stores.items()}
    contenders = {str(count): Contender(lambda run=run: run.steps(2)) for count, run in runs.items()}  # type: ignore[misc]
    for contender in contenders.values():
        contender.seconds()
    seconds = by_turns(contenders, max(rounds, 7))
    rows = []
    for count, store in stores.items():
        size = store.stat().st_size
        rate = 2 * runs[count].run.batch / median(seconds[str(count)])
        beside = ratio(seconds[str(counts[0])], seconds[str(count)])
        rows.append({"scans": count, "images/s": rate, "beside the first": beside, "store": size})
        rows[-1] |= {"read in a second": size / seconds_of(lambda store=store: read_store(store))}  # type: ignore[misc]
        rows[-1] |= {"peak memory": memory[count], "beyond the store": memory[count] - size}
    return rows


def many_scans(folder: Path, images: np.ndarray, count: int) -> Path:
    """A store of `count` stand-in scans with its tables, a patient 100 scans."""
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


def scale_run(data: Data) -> Octdino:
    """A run of ResNet-18 on the smaller crops."""
    return Octdino(Task("resnet18", (96, 48), 4, batch=16), data, "float32")


def first_steps(store: Path) -> None:
    """Read the store as a run does, and take two steps."""
    scale_run(read_data(store, None, watched=100)).steps(2)


@dataclass(frozen=True)
class Features:
    """What stands in for OLIVES's features: those of neighbours are alike, as pooled features are.

    Attributes:
        bank: [78,000, 384]; train [6,600, 384]; val [1,400, 384].
        truth: [6,600 + 1,400, 16].
    """

    bank: np.ndarray
    train: np.ndarray
    val: np.ndarray
    truth: np.ndarray


def features() -> Features:
    """Of 64 directions, rectified; labels that a linear probe finds in part."""
    rng = np.random.default_rng(0)
    mix, x = rng.normal(size=(64, 384)), rng.normal(size=(78_000, 64))
    bank = np.maximum(x @ mix + 0.3 * rng.normal(size=(78_000, 384)), 0).astype(np.float32)
    logits = x[:8000] @ rng.normal(size=(64, 16)) / 8 - 2
    return Features(bank, bank[:6600], bank[6600:8000], (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))) * 1.0)


def evaluation(rounds: int) -> list[Row]:
    """Seconds of what is done with features and predictions at the size of OLIVES, and of the usual way to do it."""
    f, settings = features(), ClassifySettings()
    probes = {
        "ours": Contender(lambda: fit_linear(f.train, f.truth[:6600], f.val, f.truth[6600:], settings)),
        "theirs": Contender(lambda: one_by_one(f, settings.inverse_regularization)),
    }
    seconds = by_turns(probes, 2)
    size = f"16 labels x {len(settings.inverse_regularization)} penalties, 6,600 x 384 features"
    rows = [
        {"work": f"linear probes: {size}", "seconds": median(seconds["ours"])},
        {"work": "the same, scikit-learn one by one", "seconds": median(seconds["theirs"])},
    ]
    bank, labels = torch.from_numpy(f.bank), torch.zeros(78_000, 16)
    patients = torch.arange(78_000) // 800
    votes = [seconds_of(lambda: knn_scores(bank[:2000], bank, labels, patients[:2000], patients, k=20)) for _ in "ab"]
    rows.append({"work": "kNN: 2,000 queries, 78,000 in the bank", "seconds": min(votes)})
    rows.append({"work": "bootstrap: 20 arms x 16 labels x 1,000 resamples, 2,400 scans", "seconds": bootstrap(20, 16)})
    return rows


def one_by_one(f: Features, penalties: list[float]) -> None:
    """A scikit-learn regression a label and penalty, as a plain script has it."""
    z = (f.train - f.train.mean(0)) / f.train.std(0)
    for penalty in penalties:
        for y in f.truth[:6600].T:
            LogisticRegression(C=penalty, max_iter=500).fit(z, y)


def bootstrap(arms: int, labels: int) -> float:
    """Seconds of all metrics of so many arms and labels in 1,000 resamples of 22 test patients."""
    rng = np.random.default_rng(0)
    patient, times = np.sort(rng.integers(0, 22, 2400)), resample_patients(22, 1000, 0)
    truth, score = rng.random((labels, 2400)) < 0.2, rng.random((arms, labels, 2400))

    def work() -> None:
        for arm in range(arms):
            for label in range(labels):
                ranking_metrics(truth[label], score[arm, label], patient, times)
                decision_metrics(truth[label], score[arm, label] > 0.5, patient, times)

    return seconds_of(work)
