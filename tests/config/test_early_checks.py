"""What a dry run finds in files, folders, disk and memory, each in one line."""

from pathlib import Path
from typing import Any

import pytest

from octdino.config import check_before_run, known_scans, load_config, memory_mb, notes_before_run
from octdino.config.settings_base import merged
from octdino.errors import UserError

DINO = {"pretrain": {"methods": ["dino"]}}
TABLE = "path,patient,fluid\na.png,1,0\nb.png,2,1\nc.png,3,1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a table of three images."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "scans.csv").write_text(TABLE)
    (folder / "a.png").touch()
    return folder


def folder_settings(root: Path, **values: Any) -> dict[str, Any]:
    return {"cohort": {"name": "folder", "root": str(root), **values}}


def refused(values: dict[str, Any], results: Path, **how: Any) -> str:
    with pytest.raises(UserError) as error:
        check_before_run(load_config(values), results=results, **how)
    assert "\n" not in str(error.value)
    return str(error.value)


def passes(values: dict[str, Any], results: Path, **how: Any) -> None:
    check_before_run(load_config(values), results=results, **how)


def test_a_method_without_its_clinical_value_says_what_to_leave_out(root: Path, tmp_path: Path) -> None:
    said = refused(folder_settings(root), tmp_path)
    assert said == (
        f"pretrain.methods: supcon_cst needs cst (retinal thickness); {root}/scans.csv has no such column; leave "
        "supcon_cst out of pretrain.methods and its arms (supcon_cst-linear) out of classify.arms"
    )
    passes(folder_settings(root) | DINO, tmp_path)
    for name in ("CST", "central subfield thickness"):
        (root / "scans.csv").write_text(TABLE.replace("fluid", name))
        passes(folder_settings(root), tmp_path)
    (root / "scans.csv").write_text(TABLE.replace(".png", ".vol"))  # its header may have it
    passes(folder_settings(root), tmp_path)


def test_class_folders_of_images_have_no_clinical_value(root: Path, tmp_path: Path) -> None:
    (root / "scans.csv").unlink()
    assert f"there is no table in {root}, and images have none" in refused(folder_settings(root), tmp_path)
    (root / "volume.e2e").touch()
    passes(folder_settings(root), tmp_path)


def test_visits_as_positives_need_columns_of_eyes_and_visits(root: Path, tmp_path: Path) -> None:
    eyes = {"pretrain": {"methods": ["simclr"], "variants": {"simclr": {"positives": "eye"}}}, "classify": {"arms": []}}
    said = refused(folder_settings(root) | eyes, tmp_path)
    assert said == (
        "pretrain.methods: simclr needs eye (the eye of each scan) and visit (the visit of each scan); "
        f"{root}/scans.csv has no such column; leave simclr out of pretrain.methods"
    )
    for names in ("eye,visit", "Laterality,Visit no", "side,timepoint"):
        header, *lines = TABLE.splitlines()
        (root / "scans.csv").write_text("\n".join([f"{header},{names}", *(f"{line},OD,1" for line in lines)]))
        passes(folder_settings(root) | eyes, tmp_path)
    (root / "scans.csv").unlink()  # names of folders may contain both
    passes(folder_settings(root) | eyes, tmp_path)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_too_few_rows_for_three_splits(root: Path, tmp_path: Path, separator: str) -> None:
    lines = TABLE.replace(",", separator).splitlines()[:3]
    (root / "scans.csv").write_text("\n".join(lines))
    said = refused(folder_settings(root) | DINO, tmp_path)
    assert said == (f"cohort.table: {root}/scans.csv: 2 rows; expected 3 patients or more, to train, validate and test")


def test_crossval_needs_rows_for_each_fold(root: Path, tmp_path: Path) -> None:
    values = folder_settings(root, split={"protocol": "crossval", "folds": 4}) | DINO
    assert "3 rows; expected 6 patients or more" in refused(values, tmp_path)


def test_what_is_named_must_exist(root: Path, tmp_path: Path) -> None:
    values = folder_settings(root) | DINO
    assert refused(folder_settings(root / "x") | DINO, tmp_path) == f"cohort.root: no such folder: {root}/x"
    (root / "empty").mkdir()
    assert refused(folder_settings(root / "empty") | DINO, tmp_path).startswith(
        f"cohort.root: empty folder: {root}/empty"
    )
    table = {"cohort": {"table": str(root / "no.csv")}}
    assert refused(merged(values, table), tmp_path) == f"cohort.table: no such file: {root}/no.csv"
    weights = {"models": {"a": {"timm": "resnet18", "weights": str(root / "w.pth")}}}
    assert refused(values | weights, tmp_path) == f"models.a.weights: no such file: {root}/w.pth"
    weights = {"models": {"a": {"timm": "vit_tiny_patch16_224", "layout": "huggingface", "weights": str(root / "hf")}}}
    (root / "hf").mkdir()
    (root / "hf/model.safetensors").touch()
    assert refused(values | weights, tmp_path) == f"models.a.weights: no such file: {root}/hf/config.json"


def test_an_earlier_run_that_is_not_there(root: Path, tmp_path: Path) -> None:
    start = str(tmp_path / "earlier/{backbone}/fold{fold}-seed{seed}")
    values = folder_settings(root) | {"pretrain": {"methods": ["dino"], "variants": {"dino": {"init": start}}}}
    assert refused(values, tmp_path / "results") == (
        f"pretrain.variants.dino.init: no backbone.safetensors in {tmp_path}/earlier/resnet18/fold0-seed0; expected "
        "the folder of a finished pretraining run"
    )
    run = tmp_path / "earlier/resnet18/fold0-seed0"
    run.mkdir(parents=True)
    (run / "backbone.safetensors").touch()
    passes(values, tmp_path / "results")


def test_a_run_of_the_same_workflow_need_not_exist_yet(tmp_path: Path) -> None:
    start = str(tmp_path / "phantom/pretrain/simclr/{backbone}/fold{fold}-seed{seed}")
    values = {"pretrain": {"methods": ["simclr", "dino"], "variants": {"dino": {"init": start}}}}
    passes(values, tmp_path)


def test_a_store_that_does_not_fit_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = type("Usage", (), {"free": 5_000_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    values = {"cohort": {"name": "oct2017", "root": str(tmp_path), "image": {"size": [496, 504]}}} | DINO
    (tmp_path / "ZhangLabData.zip").touch()
    assert refused(values, tmp_path) == (
        f"{tmp_path}/oct2017/cohort/scans.h5: 28.7 GB needed for 109,309 scans of 496 x 504 px (250.0 kB each), 5.0 GB "
        f"free in {tmp_path}; expected a smaller cohort.image.size, or another --directory"
    )
    (tmp_path / "oct2017/cohort").mkdir(parents=True)
    (tmp_path / "oct2017/cohort/scans.h5").touch()  # it is there already
    passes(values, tmp_path)


def test_scans_that_may_not_fit_into_memory_are_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimate of the most that is held: it refuses nothing."""
    monkeypatch.setattr("octdino.config.early_checks.machine_memory", lambda: 16_000_000_000)
    (tmp_path / "x.zip").touch()
    values = {"cohort": {"name": "olives", "root": str(tmp_path), "image": {"size": [496, 504]}}} | DINO
    passes(values, tmp_path)
    (note,) = notes_before_run(load_config(values), results=tmp_path)
    assert note.startswith("pretrain: up to 21.7 GB of memory for 78,189 scans of 496 x 504 px (250.0 kB each), ")
    assert "this machine has 16.0 GB" in note
    assert not notes_before_run(load_config(values), results=tmp_path, cluster=True)  # on other machines


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scans.tsv", b"path\tpatient\tfluid\tcst\na.png\t1\t0\t250\nb.png\t2\t1\t260\nc.png\t3\t1\t270\n"),
        ("scans.csv", b"filename,patient,fluid,cst\na.png,1,0,250\nb.png,2,1,260\nc.png,3,1,270\n"),
        ("scans.csv", "path,Größe,fluid,cst\na.png,1,0,250\nb.png,2,1,260\nc.png,3,1,270\n".encode("cp1252")),
        ("scans.xlsx", b"PK a workbook"),
        ("scans.csv", b"sep=;\npath;patient;fluid;cst\na.png;1;0;250\nb.png;2;1;260\nc.png;3;1;270\n"),
    ],
)
def test_a_table_that_the_dry_run_does_not_understand_may_have_thickness(
    root: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    (root / "scans.csv").unlink()
    (root / name).write_bytes(content)
    passes(folder_settings(root), tmp_path)


def test_rows_are_counted_with_any_line_ends(root: Path, tmp_path: Path) -> None:
    (root / "scans.csv").write_bytes(TABLE.replace("\n", "\r").encode())
    passes(merged(folder_settings(root, table=str(root / "scans.csv")), DINO), tmp_path)


def test_memory_of_jobs_grows_with_the_scans_and_never_falls_below_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "x.zip").touch()
    large = load_config({"cohort": {"name": "olives", "root": str(tmp_path), "image": {"size": [496, 504]}}} | DINO)
    assert 21_000 <= memory_mb(large, 78_000, "pretrain") <= 22_000
    assert memory_mb(large, 78_000, "audit") >= 19_500
    for rule in ("pretrain", "classify", "embed", "cohort"):
        assert memory_mb(large, None, rule) == 8000
        assert memory_mb(large, 100, rule) == 8000


def test_the_number_of_scans_is_known_from_the_manifest_the_settings_or_the_table(root: Path, tmp_path: Path) -> None:
    phantom = load_config({"cohort": {"phantom": {"patients": 87, "visits": 4, "slices": 7}}}).cohort
    assert known_scans(phantom, tmp_path) == 96 * 4 * 7  # 87 patients, 9 of them with both eyes
    assert known_scans(load_config(folder_settings(root) | DINO).cohort, tmp_path) == 3
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort/manifest.csv").write_text("scan_id\n" + "s\n" * 11)
    assert known_scans(phantom, tmp_path) == 11


def test_notes_name_methods_without_arms_and_enlarged_views() -> None:
    values = {
        "cohort": {"image": {"size": [64, 64]}},
        "pretrain": {"methods": ["dino", "byol"], "augment": {"global_size": 96}},
        "classify": {"arms": ["scratch-finetune", "dino-linear"]},
    }
    notes = notes_before_run(load_config(values))
    assert notes[0] == "pretrain.methods: byol: no arm of classify.arms starts from it"
    assert notes[1].startswith("pretrain.augment.global_size: views of 96 px are enlarged from stored scans of 64 px")
    assert not notes_before_run(load_config({}))


def test_a_table_may_be_named_relative_to_the_root(root: Path, tmp_path: Path) -> None:
    passes(merged(folder_settings(root, table="scans.csv"), DINO), tmp_path)
