"""Throughput: seconds per part of a step, FLOPs, and the columns of history.csv."""

import time

import pytest
import torch

from octdino.training.throughput import ModelFlopsUtilization, StepTimer, Throughput

CPU = torch.device("cpu")


def test_step_timer_sums_parts_and_resets():
    timer = StepTimer(CPU)
    for name in ("data", "forward", "data"):
        with timer.part(name):
            time.sleep(0.002)
    seconds = timer.read()
    assert set(seconds) == {"data", "forward"}
    assert seconds["data"] >= 0.004
    assert timer.read() == {}


def test_mfu_counts_flops_of_matrix_products_per_image():
    mfu = ModelFlopsUtilization(CPU, torch.float32)
    assert not mfu.at(1.0) >= 0, "NaN before anything was counted"
    mfu.count(lambda images: torch.ones(images, 8) @ torch.ones(8, 16), images=4)
    assert mfu.flops_per_image == 2 * 8 * 16
    assert mfu.at(mfu.ceiling / 256) == pytest.approx(1.0)


def test_throughput_counts_images_since_restart():
    throughput = Throughput(CPU, torch.float32)
    throughput.add(1000)
    throughput.restart()
    throughput.add(8)
    with throughput.timer.part("data"):
        time.sleep(0.05)
    columns = throughput.columns()
    assert list(columns) == ["images_per_second", "utilisation", "data_wait", "augmentation"]
    assert 0 < columns["images_per_second"] <= 8 / 0.05
    assert 0 < columns["data_wait"] <= 1
    assert columns["augmentation"] == 0
