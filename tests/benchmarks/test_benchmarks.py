"""The benchmark times contenders in interleaved rounds, and writes its tables."""

import math
import re
from itertools import pairwise
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import device_checks, inference, stages, training
from benchmarks.__main__ import main
from benchmarks.ceiling import view_bytes
from benchmarks.loops import Naive, Task
from benchmarks.scans import Scans, many, write_scans
from benchmarks.tables import hours, table
from benchmarks.timing import Contender, interleaved, ratio
from octdino.augment import View
from octdino.config import METHODS, AugmentSettings
from octdino.config.cohort import PhantomSettings
from octdino.phantom import write_phantom
from octdino.pretrain.methods.dino import dino_loss

SLICES = 6  # per volume; the benchmarks have 49


def test_contenders_run_in_rotating_order():
    calls = []
    contenders = {name: Contender(lambda name=name: calls.append(name)) for name in "abc"}
    seconds = interleaved(contenders, 4)
    rounds = ["".join(calls[i : i + 3]) for i in range(0, 12, 3)]
    assert rounds == ["abc", "bca", "cab", "abc"]
    assert all(len(times) == 4 and min(times) >= 0 for times in seconds.values())


def test_setup_and_teardown_are_not_timed():
    log = []
    slow = Contender(lambda: log.append("work"), lambda: log.append("begin"), lambda: log.append("end"))
    interleaved({"slow": slow}, 2)
    assert log == ["begin", "work", "end"] * 2


def test_ratio_compares_times_of_the_same_round():
    """The second round met a busy machine; both were slow in it."""
    assert ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == 2.0


def test_repeated_scans_differ():
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8)).astype(np.uint8)
    made = many(images, 10)
    assert made.shape == (10, 1, 8, 8)
    assert len({image.tobytes() for image in made}) == 10


def test_view_bytes_sums_input_and_output():
    assert view_bytes((1, 10, 20), [View(2, 4, (1, 1)), View(3, 2, (1, 1))]) == 200 + 4 * (2 * 16 + 3 * 4)


def test_naive_loss_equals_dino_loss():
    naive = object.__new__(Naive)
    naive._center = torch.zeros(7)
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 5, 7), torch.randn(6, 5, 7)
    expected = dino_loss(torch.log_softmax(student / 0.1, -1), torch.softmax(teacher / 0.04, -1))
    torch.testing.assert_close(naive._loss(teacher.unbind(), student.unbind()), expected)


def test_hours_and_markdown_tables_are_formatted():
    assert hours(100 * 78_000 / 2400) == "0 h 54 min"
    assert hours(7.2 * 86400) == "7 d 4 h"
    assert table(["a", "b"], [["x", "1"]]).splitlines() == ["| a | b |", "|---|--:|", "| x | 1 |"]


def test_crops_are_written_as_count_times_size():
    assert Task("resnet18", (96, 48), 4, 8).crops == "2 x 96 + 4 x 48"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return a folder with synthetic scans as the benchmarks write them, but of few slices."""
    folder = tmp_path_factory.mktemp("scans")
    write_phantom(PhantomSettings(patients=8, visits=2, slices=SLICES, flaws=False), folder / "files", 1)
    write_scans(folder, 8)
    return folder


@pytest.mark.slow
def test_small_benchmark_writes_all_tables(work, tmp_path, capsys, monkeypatch):
    server = get_context("forkserver")  # imports once for the dozen processes of a benchmark
    server.set_forkserver_preload(["benchmarks.inference", "benchmarks.loops"])
    for module in (stages, training):
        monkeypatch.setattr(module, "get_context", lambda _: server)
    monkeypatch.setenv("OCTDINO_AUTO_PRECISION", "float32")  # where auto is bfloat16, both precisions are timed
    for name, size in {"GALLERY": 1000, "TRAIN": 400, "VAL": 200, "QUERIES": 100, "SCALE_ROUNDS": 1}.items():
        monkeypatch.setattr(stages, name, size)
    monkeypatch.setattr(inference, "COPIES", 1)
    monkeypatch.setattr(inference, "SLICES", SLICES)
    words = (
        "--backbones test_vit --crops 2x96+4x48 --batch 4 --rounds 1 --patients 8 --scans 64 128 --ingest-scans 60 90"
    )
    main([*words.split(), "--work", str(work), "--out", str(tmp_path), "--machine", "A: Machine"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "a-machine.md")
    text = (tmp_path / "a-machine.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")][1:] == [
        "## Pretraining by the number of scans (ResNet-18, 2 x 96 + 4 x 48, 16 images per step)",
        "## Ingest: decode, check, resize, write",
        "## Evaluation of features",
        "## Predicting new scans",
    ]
    loops = re.findall(r"^\| (octdino|lightly|naive) \| float32 \| ([\d.]+) \| ([\d.]+) \|(.*)\|$", text, re.M)
    assert [name for name, *_ in loops] == ["octdino", "lightly", "naive"]
    for _, rate, times, rest in loops:
        shares = [float(x) for x in re.findall(r"([\d.]+) %", rest)[:6]]
        assert float(rate) > 0
        assert float(times) > 0
        assert 50 < sum(shares) < 101, "the parts make up the step"
    sizes = [float(x) for x in re.findall(r"([\d.]+) GB \|$", text, re.M)]
    assert len(sizes) == 3 + 2 + 3 + 4
    assert all(a >= 0 for a, _ in pairwise(sizes))


def test_checks_of_a_gpu_need_one(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--gpu"])
    assert end.value.code == 2
    assert "--gpu: no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("losses", "passed"), [([1, 2.03], True), ([1.001, 2], False), ([1, 2.05], False), ([1, math.nan], False)]
)
def test_losses_that_differ_fail(losses, passed):
    check = device_checks.compared("x", torch.tensor(losses), torch.tensor([1.0, 2.0]), first=1e-4, largest=2e-2)
    assert check.passed is passed


def test_failed_check_is_in_the_table_and_the_exit_code(tmp_path, monkeypatch):
    outcomes = [device_checks.Check(str(passed), "found", "expected", passed) for passed in (True, None, False)]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("benchmarks.__main__.write_scans", lambda *_: Scans(tmp_path, tmp_path, tmp_path))
    monkeypatch.setattr("benchmarks.__main__.check_device", lambda *_: iter(outcomes))
    argv = ["--gpu", "--parts", "--work", str(tmp_path / "work"), "--out", str(tmp_path), "--machine", "A"]
    assert main(argv) == 1
    text = (tmp_path / "a.md").read_text()
    assert "| False | found | expected | **failed** |" in text
    assert "| None | found | expected | not possible here |" in text
    outcomes.pop()
    assert main(argv) == 0


@pytest.mark.slow
def test_a_device_that_computes_right_passes_every_check(work, programs, monkeypatch):
    """The CPU against itself, two of the methods, few steps. torch's compiler is left out: it takes minutes."""
    small = {"augment": AugmentSettings(global_size=32, local_size=16, local_views=2)}
    monkeypatch.setattr(device_checks, "SETTINGS", device_checks.SETTINGS.model_copy(update=small))
    monkeypatch.setattr(device_checks, "STEPS", 4)
    monkeypatch.setattr(device_checks, "sys", SimpleNamespace(executable=str(programs / "warm-python")))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    monkeypatch.setattr(device_checks, "METHODS", {name: METHODS[name] for name in ("simclr", "mae")})
    checks = list(device_checks.check_device(work / "cohort/scans.h5", torch.device("cpu"), 300, (30, 40)))
    assert [check.name for check in checks if check.passed is not True] == []
    assert [check.name for check in checks] == [
        "simclr, resnet18: as on the CPU",
        "simclr, vit: as on the CPU",
        "mae, vit: as on the CPU",
        "dino, resnet18: bfloat16 against float32",
        "dino, resnet18: float16 against float32",
        "dino, vit: bfloat16 against float32",
        "dino, vit: float16 against float32",
        "dino, resnet18: compiled against not compiled",
        "dino, vit: compiled against not compiled",
        "dinov2, vit: compiled against not compiled",
        "batches from the device's and from the host's memory",
        "300 scans of 40 x 30 px",
        "resnet18, deterministic: stopped and resumed",
        "resnet18, deterministic: two runs at once",
        "resnet18: two processes against one",
    ]
