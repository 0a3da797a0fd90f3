"""`octdino inspect` and `octdino init`: what they print, the files they write, and that a run can start from these."""

import builtins
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from octdino import cli
from octdino.cohort import inspection
from octdino.config import load_config
from octdino.config.settings_base import merged

ROOT = Path(__file__).parents[2]
LAPTOP = ["--size", "laptop", "--workers", "1"]


def scan(number: int) -> np.ndarray:
    """A bright band on dark speckle, uint8 [96, 80], with the retina in rows 50 to 60."""
    pixels = np.random.default_rng(number).integers(0, 40, (96, 80)).astype(np.uint8)
    pixels[50:60] += 180
    return pixels


def write_scans(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scan(number)).save(root / name)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Eight patients with two scans each, A of every other one; a missing file, a broken one, and a copy."""
    names = [f"images/{number}.png" for number in range(16)]
    write_scans(tmp_path / "root", names)
    (tmp_path / "root/images/14.png").write_bytes(b"no image")
    (tmp_path / "root/images/15.png").write_bytes((tmp_path / "root/images/13.png").read_bytes())
    rows = [{"file": name, "Subject": f"s{i // 2}", "A": i // 2 % 2, "note": "x"} for i, name in enumerate(names)]
    rows.append({"file": "images/none.png", "Subject": "s9", "A": 1, "note": ""})
    pd.DataFrame(rows).to_csv(tmp_path / "root/scans.csv", index=False, sep=";")
    return tmp_path / "root/scans.csv"


def configuration(folder: Path) -> dict:
    """The written configuration, after the settings classes have taken it over the laptop preset."""
    values = yaml.safe_load((folder / "inspect.yaml").read_text())
    load_config(merged(yaml.safe_load((ROOT / "config/folder.yaml").read_text()), values))
    load_config(values)
    return values


@pytest.mark.parametrize("given", ["table", "root"])
def test_what_would_be_read_is_printed(
    table: Path, tmp_path: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = table if given == "table" else table.parent
    assert cli.main(["inspect", str(source), "--out", str(tmp_path / "out"), *LAPTOP]) == 0
    said = capsys.readouterr().out
    words = " ".join(said.split())
    assert "files 16 .png, 1 .csv" in words
    assert "columns path: file; patient: Subject" in words
    assert "not read note" in words
    assert "accepted 16 scans refused 1 row" in words
    assert (
        "1 missing_file (the table names a file that is not there): scans.csv row 18: no file images/none.png" in words
    )
    assert re.search(r"^A +8 +8 +0 +4$", said, re.MULTILINE)  # scans with it, without, unknown; patients with it
    assert "patients 8, 2.0 scans each on average" in words
    assert "images all decoded formats 15 PNG, 8-bit gray sizes 15 of 80 x 96 px" in words
    assert "unusable 1 unreadable: images/14.png: no known image format" in words
    assert "copies 1 files equal another one byte by byte, of 16 compared" in words
    assert "split train 4 patients, 8 scans; val 2 patients, 4 scans; test 2 patients, 4 scans" in words
    assert "1 of 16 sampled images would be refused." in words


def test_the_configuration_names_what_was_decided(table: Path, tmp_path: Path) -> None:
    assert cli.main(["inspect", str(table), "--out", str(tmp_path / "out"), *LAPTOP]) == 0
    assert configuration(tmp_path / "out") == {
        "cohort": {
            "name": "folder",
            "title": "root",
            "root": str(table.parent),
            "table": str(table),
            "labels": ["A"],
            "image": {"size": [128, 128], "crop": "retina"},
        }
    }
    text = (tmp_path / "out/inspect.yaml").read_text()
    assert "# Columns read by their names: file as path, Subject as patient." in text
    assert f"octdino run --cores all --configfile folder {tmp_path / 'out/inspect.yaml'}" in text


def test_a_cohort_made_by_the_configuration_has_the_scans_that_were_shown(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli.main(["inspect", str(table), "--out", str(out), *LAPTOP]) == 0
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(configuration(out)["cohort"]))
    cohort = ["cohort", "folder", "--settings", str(tmp_path / "cohort.yaml"), "--out", str(tmp_path / "made")]
    assert cli.main([*cohort, "--workers", "1"]) == 0
    manifest = pd.read_csv(tmp_path / "made/manifest.csv")
    assert len(manifest) == 15  # without the broken file; the copy is of another patient
    assert manifest["A"].sum() == 7


def test_class_folders_and_patients_in_names_are_written_down(tmp_path: Path) -> None:
    names = [f"{kind}/{kind}-{patient}-{n}.png" for kind in ("CNV", "DME") for patient in (11, 12, 13) for n in (1, 2)]
    write_scans(tmp_path / "my scans", names)
    argv = ["inspect", str(tmp_path / "my scans"), "--out", str(tmp_path / "out")]
    assert cli.main([*argv, "--size", "gpu", "--workers", "1"]) == 0
    values = yaml.safe_load((tmp_path / "out/inspect.yaml").read_text())
    cohort = load_config(values).cohort
    assert (cohort.title, cohort.folders, cohort.patient_pattern) == ("my_scans", "classes", r"^[A-Za-z]+-(\d+)-\d+")
    assert cohort.image.crop == "retina"
    assert values["classify"]["arms"] == ["scratch-finetune", "dino-linear", "dino-finetune", "simclr-linear"]
    assert cli.main([*argv, "--size", "gpu", "--settings", str(tmp_path / "out/inspect.yaml"), "--force"]) == 0
    assert yaml.safe_load((tmp_path / "out/inspect.yaml").read_text()) == values


def test_the_contact_sheet_shows_scans_with_their_crop(table: Path, tmp_path: Path) -> None:
    assert cli.main(["inspect", str(table), "--out", str(tmp_path / "out"), *LAPTOP]) == 0
    page = (tmp_path / "out/inspect.html").read_text()
    assert page.count("<figure>") == 12  # six with A, six without
    assert page.count("data:image/jpeg;base64,") == 24
    assert re.findall(r"<h2>(.*?) <small>(.*?)</small>", page) == [
        ("A", "8 scans of 4 patients"),
        ("none of the labels", ""),
    ]
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    patients = re.findall(r"<span>patient (s\d), 80 x 96 px, PNG, 8-bit gray</span>", page)
    assert len(patients) == 12
    assert set(patients[:4]) == {"s1", "s3", "s5", "s7"}  # first one scan of each patient
    assert set(patients[6:10]) == {"s0", "s2", "s4", "s6"}


def test_only_a_sample_of_the_images_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{kind}/{number}.png" for kind in "AB" for number in range(60)]
    write_scans(tmp_path / "root", names)
    decoded: list[str] = []
    decode: Callable[..., Iterator] = inspection.decode_scans

    def counted(paths: list[str], *rest: object) -> Iterator:
        decoded.extend(paths)
        return decode(paths, *rest)

    monkeypatch.setattr(inspection, "decode_scans", counted)
    assert cli.main(["inspect", str(tmp_path / "root"), "--out", str(tmp_path / "out"), "--sample", "10", *LAPTOP]) == 0
    assert 10 <= len(decoded) <= 34  # and up to twelve per label
    assert f"a sample of {len(decoded)} of 120 decoded" in " ".join(capsys.readouterr().out.split())


def test_existing_files_are_kept(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/inspect.yaml").write_text("mine: true\n")
    assert cli.main(["inspect", str(table), "--out", str(tmp_path / "out"), *LAPTOP]) == 2
    assert "inspect.yaml: is there already; --force writes over it" in capsys.readouterr().err
    assert (tmp_path / "out/inspect.yaml").read_text() == "mine: true\n"
    assert not (tmp_path / "out/inspect.html").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["none"], "none: no such folder or table; expected a folder, .csv, .tsv"),
        (["empty"], "neither a table with a path column nor an image"),
        (["root", "--patient-pattern", "("], "patient_pattern: '(' is no regular expression"),
        (["root", "--settings", '{"cohort": 3}'], "--settings: cohort: expected a mapping of settings, found int"),
        (["root", "--settings", '{"cohort": {"lables": []}}'], "lables: unknown key; did you mean labels?"),
    ],
)
def test_a_mistake_is_one_line(
    table: Path, tmp_path: Path, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert cli.main(["inspect", str(tmp_path / argv[0]), *argv[1:], "--out", str(tmp_path / "out"), *LAPTOP]) == 2
    error = capsys.readouterr().err.splitlines()
    assert said in error[-1]
    assert not (tmp_path / "out").exists()


def test_too_few_patients_are_said_and_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scans(tmp_path / "root", ["A/1.png", "B/2.png"])
    assert cli.main(["inspect", str(tmp_path / "root"), "--out", str(tmp_path / "out"), *LAPTOP]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "The split cannot be made: cohort: 2 patients with a label (2 labels); expected 3 or more" in words
    assert "Patients are unknown: scans of one patient may be in training and in test" in words


def test_labels_of_few_patients_are_named_with_what_evaluate_makes_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default least numbers of positive patients of `evaluate`: 10 to be evaluated, 25 not to be exploratory."""
    classes = {"enough": 25, "some": 24, "edge": 10, "rare": 9}
    write_scans(tmp_path / "root", [f"{name}/{name}{n}/1.png" for name, count in classes.items() for n in range(count)])
    argv = ["inspect", str(tmp_path / "root"), "--folders", "classes-patients", "--out", str(tmp_path / "out")]
    assert cli.main([*argv, *LAPTOP]) == 0
    words = " ".join(capsys.readouterr().out.split()).partition("Before a run: ")[2]
    assert "Not evaluated with fewer than 10 patients (evaluate.min_positive_patients): rare (9)." in words
    few = words.partition("At most exploratory, with fewer than 25 patients (evaluate.primary_positive_patients): ")[2]
    assert set(few.partition(".")[0].split(", ")) == {"some (24)", "edge (10)"}


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> list[str]:
    """Answer the questions with these lines; returns the questions."""
    asked: list[str] = []
    left = iter(lines)

    def answer(question: str = "") -> str:
        asked.append(question)
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", answer)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    return asked


def test_init_without_a_terminal_names_inspect(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["init", str(table)]) == 2
    assert (
        "it asks questions on a terminal, and this is none; `octdino inspect ROOT` asks nothing"
        in capsys.readouterr().err
    )


def test_init_with_empty_answers_is_what_inspect_writes(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, str(table), "", "", "laptop")
    assert cli.main(["init", "--out", str(tmp_path / "init"), "--workers", "1"]) == 0
    assert [question.split(",")[0] for question in asked] == [
        "Folder of the scans", "Label columns", "Title", "Size of the run: laptop or gpu [laptop]: ",
    ]  # fmt: skip
    assert cli.main(["inspect", str(table), "--out", str(tmp_path / "inspect"), *LAPTOP]) == 0
    assert configuration(tmp_path / "init") == configuration(tmp_path / "inspect")


def test_init_asks_for_a_pattern_until_it_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scans(tmp_path / "root", [f"{kind}/x_P{number}_1.png" for kind in "AB" for number in range(4)])
    answers(monkeypatch, "(", r"_P(\d+)_", "clinic-a", "laptop")
    assert cli.main(["init", str(tmp_path / "root"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    cohort = configuration(tmp_path / "out")["cohort"]
    assert (cohort["patient_pattern"], cohort["title"]) == (r"_P(\d+)_", "clinic-a")
    said = capsys.readouterr().out
    assert "'(' is no regular expression" in said
    assert "For example the file name x_P0_1.png" in said


def test_init_asks_what_only_the_user_can_tell(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text(table.read_text().replace("note", "Sex").replace(";x", ";1"))
    answers(monkeypatch, "ignore", "Sex", "", "", "laptop")
    assert cli.main(["init", str(table), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "column Sex: 0 and 1, but by its name no finding in the scan" in capsys.readouterr().out
    cohort = configuration(tmp_path / "out")["cohort"]
    assert (cohort["labels"], cohort["ignore"]) == (["A"], ["Sex"])


def test_init_that_is_left_writes_nothing(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, "A")
    assert cli.main(["init", str(table), "--out", str(tmp_path / "out"), "--workers", "1"]) == 2
    assert "the input ended before the last answer; nothing is written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_real_scans_with_no_column_renamed(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    argv = ["inspect", str(shared_data / "oct_kermany"), "--sample", "8", "--out", str(tmp_path / "out")]
    assert cli.main([*argv, *LAPTOP]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "accepted 534 scans refused none" in words
    assert "patients 389, 1.4 scans each" in words
    assert configuration(tmp_path / "out")["cohort"]["labels"] == ["CNV", "DME", "DRUSEN", "NORMAL"]
