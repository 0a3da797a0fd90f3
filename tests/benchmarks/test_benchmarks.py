"""The benchmark times contenders in interleaved rounds, and writes its tables."""

import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.ceiling import view_bytes
from benchmarks.loops import Naive, Task
from benchmarks.scans import many
from benchmarks.tables import hours, table
from benchmarks.timing import Contender, interleaved, ratio
from octdino.augment import View
from octdino.pretrain.methods.dino import dino_loss


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


@pytest.mark.slow
def test_small_benchmark_writes_all_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OCTDINO_AUTO_PRECISION", "float32")  # where auto is bfloat16, both precisions are timed
    words = (
        "--backbones test_vit --crops 2x96+4x48 --batch 4 --rounds 1 --patients 10 --scans 64 128 --ingest-scans 60 90"
    )
    main([*words.split(), "--work", str(tmp_path / "work"), "--out", str(tmp_path), "--machine", "A: Machine"])
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
