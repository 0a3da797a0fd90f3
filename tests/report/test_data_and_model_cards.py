"""Cards say what the tables say; the checklist names every item and points only at what the page has."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from octdino.config import ReportSettings
from octdino.data.csv_io import write_table
from octdino.data.predictions import read_predictions
from octdino.data.sampling_units import WARNINGS
from octdino.data.schemas.csv_schemas import FINDINGS, SPLITS
from octdino.report import write_report
from octdino.report.audit_section import Leaks
from octdino.report.checklist import AUTHORS, ITEMS, NOT_RUN, checklist
from octdino.report.data_card import Card, Part, data_card, markdown
from octdino.report.example_scans import FALSE_ALARM, MISSED, mistakes
from octdino.report.model_card import failures, runs_of
from octdino.report.results_reader import read_results
from tests.report.test_report import CONFIG, Page, render
from tests.results import make_results, write_cohort, write_pretraining

BEST = ("dino-linear", 1.0, "resnet18")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("results") / "phantom", ("scratch-finetune", "dino-linear", "clinical"))


def audited(**values: object) -> Leaks:
    """The audit on the page: nothing was found, unless `values` say otherwise."""
    nothing = {"heads": (), "asked": [], "scans": 360, "runs": 2, "rows": [], "findings": 0, "unknown": 0}
    return Leaks(**{**nothing, "unchecked": [], **values})


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+\.\d+", text.replace("\N{MINUS SIGN}", "-"))]


def test_the_model_card_has_the_numbers_of_the_tables(results: Path) -> None:
    render(results, license="CC BY 4.0")
    text = (results / "report" / "model_card.md").read_text()
    assert text.startswith("# Model card: dino-linear on phantom\n")
    metrics = pd.read_csv(results / "evaluate" / "metrics.csv")
    own = metrics[(metrics["arm"] == "dino-linear") & (metrics["fraction"] == 1)]
    for label, metric, line in (
        ("macro", "auroc", "AUROC, macro"), ("weighted", "average_precision", "average precision, weighted"),
    ):  # fmt: skip
        row = own[(own["label"] == label) & (own["metric"] == metric)].iloc[0]
        (found,) = [one for one in text.splitlines() if one.startswith(f"| {line} |")]
        assert numbers(found)[:3] == pytest.approx([row["value"], row["low"], row["high"]], abs=5e-4)
    for words in (
        "Not for diagnosis", "240 scans of 30 patients (of training patients only)", "20 epochs, batches of 64",
        "Trained on CPU, 2 thread(s).", "Unknown, too few positive patients: VMT.",
        "classify/dino-linear/resnet18/f1/fold0-seed0/classifier.safetensors",
    ):  # fmt: skip
        assert words in text, words


def test_known_failures_are_the_worst_there_are(results: Path) -> None:
    found = read_results(results)
    lines = failures(found, *BEST)
    auroc = found.metrics[(found.metrics["arm"] == "dino-linear") & (found.metrics["fraction"] == 1)]
    auroc = auroc[(auroc["metric"] == "auroc") & ~auroc["label"].isin(["macro", "weighted"])]
    assert lines[0].startswith(f"Worst biomarker: {auroc.loc[auroc['value'].idxmin(), 'label']}, ")
    groups = found.subgroups[(found.subgroups["arm"] == "dino-linear") & (found.subgroups["label"] == "macro")]
    trial = groups[groups["subgroup"] == "trial"]
    (line,) = [line for line in lines if line.startswith("Worst by trial")]
    assert trial.loc[trial["value"].idxmin(), "group"] in line.split(";")[0]
    assert trial.loc[trial["value"].idxmax(), "group"] in line.split(";")[1]


def test_the_data_card_counts(results: Path) -> None:
    found = read_results(results)
    text = markdown(data_card(found, CONFIG, None, audited(findings=2)))
    manifest = found.cohort.manifest
    positive = manifest[manifest["IRF"] == 1]
    share = 100 * len(positive) / len(manifest)
    assert f"| IRF | {len(positive)} | {share:.1f} % | {positive['patient'].nunique()} | 0 |" in text
    assert "360 scans" in text
    assert "| unreadable | 2 |" in text
    assert "License of the data: not given." in text
    assert "PRIME: 30" in text
    assert "unknown for 6 scans" in text
    assert "The leakage audit has 2 findings." in text


def test_the_data_card_says_what_the_reader_of_the_files_decided(results: Path) -> None:
    found, said = read_results(results), "Patients are read from the file names."
    assert said not in markdown(data_card(found, CONFIG, None, audited()))
    header, attributes = found.cohort.header, found.cohort.attributes
    stored = (header, attributes.model_copy(update={"decisions": [said]}))
    found = replace(found, cohort=replace(found.cohort, _stored=stored))
    assert f"\n- {said}\n" in markdown(data_card(found, CONFIG, None, audited()))
    assert "No leakage audit was run." in markdown(data_card(found, {}, "CC0", None))
    assert "License of the data: CC0." in markdown(data_card(found, {}, "CC0", None))


def test_text_cannot_break_a_table() -> None:
    card = Card("x", "X", [Part("P", ["two\nlines"], ["a", "b"], [["1|2", "3\n4"]])])
    assert "- two lines" in markdown(card)
    assert "| 1\\|2 | 3 4 |" in markdown(card)


def test_without_arms_the_card_is_of_backbones(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort")
    write_pretraining(tmp_path / "pretrain", "dino", scope="all", alarms=["entropy of the mean is low"])
    write_report(ReportSettings(), tmp_path, CONFIG, tmp_path / "report" / "report.html")
    text = (tmp_path / "report" / "model_card.md").read_text()
    assert "No classifier was compared." in text
    assert "test patients among them" in text
    assert "entropy of the mean is low" in text
    assert (tmp_path / "report" / "data_card.md").is_file()


def test_every_item_of_both_checklists_is_there() -> None:
    def items(column: str) -> set[int]:
        return {int(number) for item in ITEMS for number in re.findall(r"\d+", getattr(item, column))}

    assert items("tripod") == set(range(1, 28))
    assert items("claim") == set(range(1, 45))


def test_the_checklist_points_only_at_what_there_is() -> None:
    rows = {row.question: row for row in checklist({"answer": "The answer", "run": "What was run"})}
    assert rows["Software"].anchor == "run"
    assert rows["Analysis of failures"] == ("Analysis of failures", "", "39", "", NOT_RUN)
    assert rows["De-identification"].where == AUTHORS
    assert rows["Software"].where == f"What was run; {AUTHORS}: where the code is"


def test_errors_on_the_page_are_the_worst_ones(results: Path) -> None:
    found = read_results(results)
    runs = runs_of(found, *BEST)
    shown = mistakes(found, runs, 2)
    table = read_predictions(runs[0][0]).take("test")
    card = json.loads((runs[0][0] / "classifier.json").read_text())
    for label in ("IRF", "DRT/ME", "FAVF"):
        threshold = card["thresholds"][label]
        rows = table.table.assign(p=table.table[f"prob:{label}"].astype(float))
        missed = rows[(rows[label] == 1) & (rows["p"] < threshold)].sort_values("p")
        alarms = rows[(rows[label] == 0) & (rows["p"] >= threshold)].sort_values("p", ascending=False)
        for kind, expected in ((MISSED, missed), (FALSE_ALARM, alarms)):
            mine = [one for one in shown if (one.label, one.kind) == (label, kind)]
            assert [one.scan_id for one in mine] == expected.drop_duplicates("patient")["scan_id"].head(2).tolist()
    assert "VMT" not in {one.label for one in shown}
    assert all(one.image.startswith("data:image/jpeg") and not one.saliency for one in shown)
    row = found.cohort.manifest.set_index("scan_id").loc[shown[0].scan_id]
    assert shown[0].known.startswith(f"CST {row['cst']:.0f} µm, BCVA {row['bcva']:.0f} letters, visit {row['visit']}")
    assert mistakes(found, runs, 0) == []


def test_maps_of_the_arm_are_shown_where_there_are_some(results: Path) -> None:
    found = read_results(results)
    runs = runs_of(found, *BEST)
    first = mistakes(found, runs, 1)[0]
    folder = results / "explain" / "dino" / "resnet18" / "fold0-seed0"
    folder.mkdir(parents=True)
    card = {
        "init": "dino", "backbone": "resnet18", "split": "test", "n_scans": 1, "n_patients": 1, "figures": [],
        "scan_ids": [first.scan_id], "labels": found.cohort.labels,
    }  # fmt: skip
    (folder / "explain.json").write_text(json.dumps(card))
    maps = np.zeros((1, len(found.cohort.labels), 4, 4), np.uint8)
    for arm, shown in (("simclr-linear", False), ("dino-linear", True)):
        save_file({arm: maps}, folder / "maps.safetensors")
        again = mistakes(read_results(results), runs, 1)
        assert bool(again[0].saliency) == shown
        assert not any(one.saliency for one in again if one.scan_id != first.scan_id)
    (folder / "maps.safetensors").unlink()
    (folder / "explain.json").unlink()


def test_the_page_stays_small(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octdino.report.example_scans.BUDGET", 1)
    found = read_results(results)
    shown = mistakes(found, runs_of(found, *BEST), 2)
    assert [bool(one.image) for one in shown] == [True] + [False] * (len(shown) - 1)


def without_patients(results: Path, root: Path, state: str) -> Path:
    """The same results of images whose patients are unknown, or that have none."""
    shutil.copytree(results, root)
    path = root / "cohort" / "manifest.csv"
    manifest = pd.read_csv(path, dtype=object)
    manifest = manifest.assign(patient=manifest["scan_id"], cohort="clinic")
    manifest.to_csv(path, index=False)
    splits = manifest.assign(fold=0, rank=None)[SPLITS.names]
    splits.to_csv(root / "cohort" / "splits.csv", index=False)
    with h5py.File(root / "cohort" / "scans.h5", "r+") as store:
        store.attrs["patients"] = state
    return root


# Sentences that mean people, not the images that are counted; and names of settings.
OF_PEOPLE = (
    "any decision on a patient", "how patients were", "Names of patients", "Patients and events", "of patients in each",
    "patients' part in the study", "patients are unknown", "Patients are unknown", "there are no patients",
    "There are no patients", "its own patient, so images of one patient may be", "min_", "small_group", "patients: ",
    "scope train_patients",
)  # fmt: skip


@pytest.mark.parametrize(("state", "why"), [("unknown", "patients are unknown"), ("none", "there are no patients")])
def test_images_without_patients_are_called_images(results: Path, tmp_path: Path, state: str, why: str) -> None:
    text, page = render(without_patients(results, tmp_path / "clinic", state))
    assert "resamples of images" in page.text
    assert f"By image, as {why}; identical images are one group." in page.text
    own = Page(re.sub(r"<svg.*?</svg>|<pre.*?</pre>", "", text, flags=re.DOTALL)).text  # figures are evaluate's
    for words in OF_PEOPLE:
        own = own.replace(words, "")
    assert re.findall(r".{60}\b[Pp]atients?\b.{20}", own) == []
    assert "min_positive_patients" in text  # a setting keeps its name


def test_resamples_are_of_patients_where_there_are_some(results: Path) -> None:
    assert "resamples of patients" in render(results)[1].text


def test_unknown_patients_are_a_banner_and_stand_in_both_cards_and_the_checklist(results: Path, tmp_path: Path) -> None:
    root = without_patients(results, tmp_path / "clinic", "unknown")
    _, page = render(root)
    warning = WARNINGS["unknown"]
    assert page.text.index(warning) < page.text.index("beats training from scratch"), "at the top"
    for name in ("data_card", "model_card"):
        assert warning in (root / "report" / f"{name}.md").read_text(), name
    text = (root / "report" / "checklist.md").read_text()
    assert "disjoint by image only, as patients are unknown" in text
    for other in ("known", "none"):
        with h5py.File(root / "cohort" / "scans.h5", "r+") as store:
            store.attrs["patients"] = other
        _, page = render(root)
        assert warning not in page.text
        assert "as patients are unknown" not in page.text


def test_the_audit_s_part_of_the_page_names_what_is_not_checkable(results: Path, tmp_path: Path) -> None:
    root = without_patients(results, tmp_path / "clinic", "unknown")
    why = "patients are unknown"
    rows = [[check, "manifest.csv", 0, why, "not checkable"] for check in ("patient", "eye", "volume")]
    table = pd.DataFrame(rows, columns=[column.name for column in FINDINGS])
    write_table(root / "audit" / "findings.csv", table, FINDINGS)
    asked = {"patient": "no patient is on two sides", "eye": "no eye is", "volume": "no volume is", "copy": "no copy"}
    card = {"asked": asked, "scans": 360, "runs": 3}
    (root / "audit" / "audit.json").write_text(json.dumps(card))
    _, page = render(root)
    part = page.text[page.text.index("Leakage audit") : page.text.index("What was run 360 images")]
    assert "Some checks cannot be run (patient, eye, volume: patients are unknown). In the others, nothing" in part
    assert "Checked: no copy." in part
    assert "The audit found" not in page.text
    table.iloc[:0].to_csv(root / "audit" / "findings.csv", index=False)
    assert "Nothing was found among 360 images and 3 runs." in render(root)[1].text


def test_the_data_card_says_what_the_audit_could_not_check(results: Path, tmp_path: Path) -> None:
    found = read_results(without_patients(results, tmp_path / "clinic", "unknown"))
    text = markdown(data_card(found, CONFIG, None, audited(unchecked=["patient, eye, volume: patients are unknown"])))
    assert "Not checkable by the audit: patient, eye, volume: patients are unknown." in text
    assert "The leakage audit found nothing in what it could check." in text
    assert "By patient, always" not in text
    assert "patients |" not in text
    assert "360 images, 360 of them labeled, 3 refused files or rows" in text
    known = markdown(data_card(read_results(results), CONFIG, None, audited()))
    assert "The leakage audit found nothing." in known
    assert "By patient, always" in known
