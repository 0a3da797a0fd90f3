"""Command line of the benchmarks: `python -m benchmarks` makes every table of `benchmarks/results/`."""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks import inference, stages, tables
from benchmarks.device_checks import check_device
from benchmarks.loops import Task
from benchmarks.scans import write_scans
from benchmarks.training import default_workers, time_task
from octdino.errors import EXIT_FAILED
from octdino.training.precision import pick_device

BACKBONES = ("resnet18", "vit_small_patch16_224")
CROPS = {"2x224+6x96": ((224, 96), 6), "2x96+4x48": ((96, 48), 4)}
PARTS = ("training", "scale", "ingest", "evaluation", "inference")
GPU_PARTS = ("training", "scale")  # that a GPU changes


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--parts", nargs="*", choices=PARTS, help="default: all; with --gpu: those that a GPU changes")
    parser.add_argument("--gpu", action="store_true", help="first the checks of training on a CUDA device")
    parser.add_argument(
        "--large-store", type=int, nargs=3, default=[78_000, 496, 504], metavar=("SCANS", "HEIGHT", "WIDTH"),
        help="store of the checks that is held in memory whole",
    )  # fmt: skip
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), help="timm's names")
    parser.add_argument("--crops", nargs="+", choices=CROPS, default=list(CROPS))
    parser.add_argument("--batch", type=int, default=128 if gpu else 16, help="images per step")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every loop; results are medians over rounds")
    parser.add_argument("--steps", type=int, default=20 if gpu else 1, help="steps per round")
    parser.add_argument(
        "--workers", type=int, default=default_workers(), help="worker processes of the peers' DataLoaders"
    )
    parser.add_argument("--compiled", action="store_true", help="also octdino with `compile: true`")
    parser.add_argument("--patients", type=int, default=24, help="patients of the phantom that replaces OLIVES")
    parser.add_argument("--scans", type=int, nargs="+", default=[1_000, 10_000, 78_000], help="store sizes of `scale`")
    parser.add_argument("--ingest-scans", type=int, nargs="+", default=[1_000, 78_000], help="cohort sizes of `ingest`")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work"), help="folder for the synthetic scans")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the tables")
    parser.add_argument("--machine", help="name of the machine in the tables; default: GPU or processor")
    args = parser.parse_args(given)
    if args.gpu and not gpu:
        parser.error("--gpu: no CUDA device; expected one, and a torch that can use it")
    if args.parts is None:
        args.parts = GPU_PARTS if args.gpu else PARTS
    return args


def main(given: list[str] | None = None) -> int:
    """Run the chosen parts, and write the tables after each; return the exit code, 1 if a check failed."""
    args = parse_arguments(given)
    logging.basicConfig(level=logging.WARNING)
    torch.backends.cudnn.benchmark = True
    results = tables.ResultsFile(
        args.out, args.machine or tables.machine(), given if given is not None else sys.argv[1:]
    )
    args.work.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    scans = write_scans(args.work, args.patients)
    log_progress(f"synthetic scans in {args.work}", begin)
    failed = False
    if args.gpu:
        count, *size = args.large_store
        checks = []
        for check in check_device(scans.cohort / "scans.h5", pick_device(), count, tuple(size)):
            checks.append(check)
            results.checks(checks)  # after each, so that a crash leaves the others
        failed = any(check.passed is False for check in checks)
        log_progress(f"{len(checks)} checks on the device", begin)
    if "training" in args.parts:
        rows = []
        for backbone in args.backbones:
            for crops in args.crops:
                task = Task(backbone, *CROPS[crops], args.batch)
                rows += list(time_task(task, scans, args.rounds, args.steps, args.workers, args.compiled))
                log_progress(f"training {backbone}, {task.crops}", begin)
                results.training(rows, args.workers)
    if "scale" in args.parts:
        results.scale(stages.scale(scans, args.scans, args.work, args.rounds))
        log_progress(f"scale {args.scans}", begin)
    if "ingest" in args.parts:
        results.ingest(stages.ingest(scans, args.ingest_scans, args.work, os.cpu_count() or 1))
        log_progress("ingest", begin)
    if "evaluation" in args.parts:
        results.evaluation(stages.evaluation(args.rounds))
        log_progress("evaluation", begin)
    if "inference" in args.parts:
        results.inference(inference.inference(scans, args.work, os.cpu_count() or 1))
        log_progress("inference", begin)
    print(results.path)
    return EXIT_FAILED if failed else 0


def log_progress(what: str, begin: float) -> None:
    """Print a progress line with the seconds since `begin`."""
    print(f"{time.monotonic() - begin:6.0f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
