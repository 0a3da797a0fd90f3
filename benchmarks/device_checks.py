"""Checks of pretraining on a device, against the CPU and against itself; `make gpu` runs them on a CUDA device.

Each check trains small networks on synthetic scans for some steps: equal numbers are required, not speed.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.timing import seconds_of
from octdino.config import METHODS, AugmentSettings, ModelSettings, PretrainSettings
from octdino.errors import EXIT_STOPPED
from octdino.models.initial_weights import Start
from octdino.pretrain.pretraining_data import PretrainData, read_data
from octdino.pretrain.trainer import Trainer
from octdino.training.checkpoints import RunState
from octdino.training.device_loader import DeviceLoader

MODELS = {
    "resnet18": ModelSettings(timm="resnet18", args={"channels": [16, 32, 64, 128]}),
    "vit": ModelSettings(
        timm="vit_tiny_patch16_224", args={"patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4}
    ),
}
BATCH, STEPS = 32, 8
SETTINGS = PretrainSettings(
    epochs=2,
    batch_size=BATCH,
    augment=AugmentSettings(global_size=64, local_size=32, local_views=2),
    methods=list(METHODS),
    variants={"dino": {"prototypes": 256}},
    precision="float32",
)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Check:
    """One comparison: what was compared, what was found, what was expected, and whether it is so.

    `passed` is None where the machine cannot make the comparison; `found` then has the reason.
    """

    name: str
    found: str
    expected: str
    passed: bool | None


def check_device(store: Path, device: torch.device, scans: int, size: tuple[int, int]) -> Iterator[Check]:
    """Yield the outcome of every check.

    Args:
        store: scans.h5 of synthetic scans.
        device: that is checked.
        scans, size: number and height and width (px) of the scans of the large store, for which memory is measured.
    """
    data = read_data(store, None, online_eval_max_scans=100)
    for check in (_losses, _precision, _compiled, _feeds):
        yield from check(data, device)
    yield from _large_store(device, scans, size)
    with tempfile.TemporaryDirectory() as folder:
        yield from _runs(store, device, Path(folder))


def _trainer(data: PretrainData, device: torch.device, method: str, model: str, **changes: Any) -> Trainer:
    settings = SETTINGS.model_copy(update=changes)
    start = Start(settings.variant(method), MODELS[model], model, 0, 0)
    made = Trainer(settings, method, start, data, 0, RunState(Path(os.devnull), {}, 1e9), device)
    made.method.train()
    return made


def _trajectory(trainer: Trainer, steps: int = STEPS) -> Tensor:
    """Return the losses of the next steps, float64 [steps] on the CPU."""
    losses = []
    for _ in range(steps):
        trainer.history.sums = {}
        trainer.take_step()
        losses.append(trainer.history.sums["loss"].cpu())
    return torch.stack(losses)


def compared(name: str, losses: Tensor, others: Tensor, first: float, largest: float) -> Check:
    """Compare two trajectories [steps]: the relative difference of the first loss, and the largest of all."""
    difference = (losses - others).abs() / others.abs().clamp(min=1e-6)
    passed = bool(difference[0] <= first and difference.max() <= largest)
    found = f"first {difference[0]:.1e}, largest {difference.max():.1e}"
    return Check(
        name, found, f"relative difference of losses at most {first:.0e} (the first), {largest:.0e} (all)", passed
    )


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Switch TensorFloat-32 off, whose products have 10 bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _losses(data: PretrainData, device: torch.device) -> Iterator[Check]:
    """Every method: the losses of the first steps are those of the CPU."""
    for method, settings in METHODS.items():
        for model in MODELS if not settings.needs_patches else ("vit",):
            with _full_float32():
                here = _trajectory(_trainer(data, device, method, model))
            there = _trajectory(_trainer(data, CPU, method, model))
            yield compared(f"{method}, {model}: as on the CPU", here, there, 1e-4, 2e-2)


def _precision(data: PretrainData, device: torch.device) -> Iterator[Check]:
    """Losses in bfloat16 and float16, at a loss scale at which nothing overflows, are near those in float32."""
    for model in MODELS:
        full = _trajectory(_trainer(data, device, "dino", model, precision="float32"))
        for name in ("bfloat16", "float16"):
            trainer = _trainer(data, device, "dino", model, precision=name)
            trainer.loss_scale.restore({"scale": torch.tensor(2.0**8), "steps": torch.tensor(0)})
            yield compared(f"dino, {model}: {name} against float32", _trajectory(trainer), full, 2e-2, 1e-1)


def _compiled(data: PretrainData, device: torch.device) -> Iterator[Check]:
    """The losses of a compiled network are those of the network."""
    for method, model in (("dino", "resnet18"), ("dino", "vit"), ("dinov2", "vit")):
        with _full_float32():
            compiled, plain = (_trajectory(_trainer(data, device, method, model, compile=on)) for on in (True, False))
        yield compared(f"{method}, {model}: compiled against not compiled", compiled, plain, 1e-4, 2e-2)


def _feeds(data: PretrainData, device: torch.device) -> Iterator[Check]:
    """Batches from the device's memory and from the host's are equal bit by bit; the time of each is shown."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randperm(len(data.images), generator=generator)[:BATCH] for _ in range(20)]
    taken, times = [], []
    for resident in (True, False):
        loader = DeviceLoader(data.images, device, resident)
        batches: list[Tensor] = []
        times.append(seconds_of(partial(_take_all, loader, rows, batches)) / len(rows))
        taken.append(torch.stack(batches).cpu())
    equal = torch.equal(*taken)
    found = f"{'equal' if equal else 'unequal'}; {1e3 * times[0]:.2f} and {1e3 * times[1]:.2f} ms per batch"
    yield Check("batches from the device's and from the host's memory", found, "equal", equal)


def _take_all(loader: DeviceLoader, rows: list[Tensor], batches: list[Tensor]) -> None:
    for each, following in zip(rows, [*rows[1:], None], strict=True):
        batches.append(loader.take(each, following))


def _large_store(device: torch.device, scans: int, size: tuple[int, int]) -> Iterator[Check]:
    """A store of full size is on the device or streamed, and a batch has the scans that were asked for."""
    images = torch.arange(scans).to(torch.uint8)[:, None, None, None].expand(-1, 1, *size).contiguous()
    loader = DeviceLoader(images, device)
    rows = torch.randperm(scans)[:BATCH]
    right = torch.equal(loader.take(rows)[:, 0, -1, -1].cpu(), images[rows, 0, -1, -1])
    used = f", {torch.cuda.memory_allocated(device) / 1e9:.1f} GB in use there" if device.type == "cuda" else ""
    where = "in the device's memory" if loader.resident else "streamed"
    found = f"{images.nbytes / 1e9:.1f} GB, {where}{used}; scans {'right' if right else 'wrong'}"
    yield Check(f"{scans:,} scans of {size[1]} x {size[0]} px", found, "scans right", right)


def _runs(store: Path, device: torch.device, folder: Path) -> Iterator[Check]:
    """`octdino pretrain` as processes of their own: resumed, two at once on the device, one run in two processes."""
    run = partial(_run, store, device)
    whole = run(folder / "whole")
    codes = [run(folder / "resumed", *more).wait() for more in (("--max-minutes", "0"), ())]
    if whole.wait():
        yield Check("resnet18, deterministic: a whole run", _last_line(folder / "whole"), "exit code 0", False)
        return
    name, expected = "resnet18, deterministic: stopped and resumed", "exit codes 75 and 0, the weights of a whole run"
    equal = codes == [EXIT_STOPPED, 0] and _weights(folder / "resumed") == _weights(folder / "whole")
    yield Check(name, "equal bit by bit" if equal else f"exit codes {codes}, unequal", expected, equal)

    together = [run(folder / which) for which in ("first", "second")]
    codes = [each.wait() for each in together]
    equal = codes == [0, 0] and _weights(folder / "first") == _weights(folder / "second") == _weights(folder / "whole")
    name, expected = "resnet18, deterministic: two runs at once", "exit codes 0 and 0, the weights of one alone"
    yield Check(name, "equal bit by bit" if equal else f"exit codes {codes}, unequal", expected, equal)

    name = "resnet18: two processes against one"
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        yield Check(name, "this machine has one GPU", "one GPU per process", None)
    elif run(folder / "processes", "--processes", "2").wait():
        yield Check(name, _last_line(folder / "processes"), "the losses of one process", False)
    else:
        two, one = (
            torch.tensor(pd.read_csv(folder / which / "history.csv")["loss"]) for which in ("processes", "whole")
        )
        yield compared(name, two, one, 1e-3, 2e-2)


def _run(store: Path, device: torch.device, out: Path, *more: str) -> "subprocess.Popen[bytes]":
    """Start a short deterministic run of dino on a ResNet-18; its output is in a log beside its folder."""
    arguments = ["--store", store, "--out", out, "--backbone", "resnet18", "--seed", 0, "--fold", 0]
    arguments += ["--model", MODELS["resnet18"].model_dump_json(), "--deterministic"]
    arguments += ["--settings", SETTINGS.model_dump_json(exclude_unset=True, exclude={"methods", "variants"})]
    environment = os.environ if device.type == "cuda" else {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with out.with_suffix(".log").open("a") as log:
        command = [sys.executable, "-m", "octdino.cli", "pretrain", "dino", *map(str, arguments), *more]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def _weights(run: Path) -> bytes:
    return (run / "backbone.safetensors").read_bytes()


def _last_line(run: Path) -> str:
    """Return the last line of a run's log, which names the cause of a failure."""
    lines = run.with_suffix(".log").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "failed without a message")
