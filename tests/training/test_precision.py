"""Precision: bfloat16 only where the hardware has it, unless the environment overrides it."""

import pytest
import torch

from octdino.errors import UserError
from octdino.training.precision import autocast, match_compiler_to_cpu, resolve_precision


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
    for chosen in ("float32", "bfloat16"):
        monkeypatch.setenv("OCTDINO_AUTO_PRECISION", chosen)
        assert resolve_precision(cpu, "auto") == chosen
        assert [resolve_precision(cpu, asked) for asked in ("float32", "bfloat16")] == ["float32", "bfloat16"]
    monkeypatch.setenv("OCTDINO_AUTO_PRECISION", "float16")
    with pytest.raises(UserError, match="OCTDINO_AUTO_PRECISION: 'float16'; expected float32 or bfloat16"):
        resolve_precision(cpu, "auto")


@pytest.mark.parametrize(("capability", "bits"), [("avx2", 256), ("avx512", None), (None, None)])
def test_compiler_is_limited_as_torchs_kernels_are(monkeypatch, capability, bits):
    from torch._inductor import config

    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    if capability:
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
    with config.patch({"cpp.simdlen": None}):
        match_compiler_to_cpu()
        assert config.cpp.simdlen == bits
