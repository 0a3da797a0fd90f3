"""Precision: bfloat16 or float16 only where the hardware has it, unless the environment overrides it."""

import pytest
import torch

from octdino.errors import UserError
from octdino.training.precision import autocast, match_compiler_to_cpu, resolve_precision

PRECISIONS = ["float32", "bfloat16", "float16"]


def test_auto_precision_follows_the_hardware(monkeypatch):
    monkeypatch.delenv("OCTDINO_AUTO_PRECISION", raising=False)
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        with autocast(torch.device("cpu"), "auto"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if native else torch.float32)
    with autocast(torch.device("cpu"), "bfloat16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_environment_variable_overrides_auto_only(monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    cpu = torch.device("cpu")
    for chosen in PRECISIONS:
        monkeypatch.setenv("OCTDINO_AUTO_PRECISION", chosen)
        assert resolve_precision(cpu, "auto") == chosen
        assert [resolve_precision(cpu, asked) for asked in PRECISIONS] == PRECISIONS
    monkeypatch.setenv("OCTDINO_AUTO_PRECISION", "float64")
    with pytest.raises(UserError, match="OCTDINO_AUTO_PRECISION: 'float64'; expected float32, bfloat16 or float16"):
        resolve_precision(cpu, "auto")


@pytest.mark.parametrize(
    ("capability", "bf16", "expected"),
    [((6, 1), False, "float32"), ((7, 0), False, "float16"), ((7, 5), False, "float16"), ((8, 0), True, "bfloat16")],
    ids=["P40", "V100", "T4", "A100"],
)
def test_auto_precision_follows_the_gpu(monkeypatch, capability, bf16, expected):
    monkeypatch.delenv("OCTDINO_AUTO_PRECISION", raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision(torch.device("cuda"), "auto") == expected


def test_float16_is_autocast():
    with autocast(torch.device("cpu"), "float16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float16


@pytest.mark.parametrize(("capability", "bits"), [("avx2", 256), ("avx512", None), (None, None)])
def test_compiler_is_limited_as_torchs_kernels_are(monkeypatch, capability, bits):
    from torch._inductor import config

    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    if capability:
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
    with config.patch({"cpp.simdlen": None}):
        match_compiler_to_cpu()
        assert config.cpp.simdlen == bits
