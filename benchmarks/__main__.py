"""`python -m benchmarks`: every table of `benchmarks/results/`, in one run."""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks import stages, tables
from benchmarks.loops import Task
from benchmarks.scans import write_scans
from benchmarks.training import default_workers, time_task

BACKBONES = ("resnet18", "vit_small_patch16_224")
CROPS = {"2x224+6x96": ((224, 96), 6), "2x96+4x48": ((96, 48), 4)}
PARTS = ("training", "scale", "ingest", "evaluation")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), help="timm's names")
    parser.add_argument("--crops", nargs="+", choices=CROPS, default=list(CROPS))
    parser.add_argument("--batch", type=int, default=128 if gpu else 16, help="images a step")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every loop; medians are over them")
    parser.add_argument("--steps", type=int, default=20 if gpu else 1, help="a round")
    parser.add_argument("--workers", type=int, default=default_workers(), help="of the peers' DataLoaders")
    parser.add_argument("--compiled", action="store_true", help="octdino with `compile: true`, too")
    parser.add_argument("--patients", type=int, default=24, help="of the phantom that stands in for OLIVES")
    parser.add_argument("--scans", type=int, nargs="+", default=[1_000, 10_000, 78_000], help="sizes in `scale`")
    parser.add_argument("--pictures", type=int, nargs="+", default=[1_000, 78_000], help="sizes in `ingest`")
    parser.add_argument("--work", type=Path, default=Path("benchmarks/.work"), help="folder for the stand-in scans")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the tables")
    parser.add_argument("--machine", help="its name in the tables; default: what it says of itself")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Time what is asked for, and write it down after every part."""
    args = arguments(given)
    logging.basicConfig(level=logging.WARNING)
    torch.backends.cudnn.benchmark = True
    book = tables.Book(args.out, args.machine or tables.machine(), given if given is not None else sys.argv[1:])
    args.work.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    scans = write_scans(args.work, args.patients)
    say(f"stand-in scans in {args.work}", begin)
    if "training" in args.parts:
        rows = []
        for backbone in args.backbones:
            for crops in args.crops:
                task = Task(backbone, *CROPS[crops], args.batch)
                rows += list(time_task(task, scans, args.rounds, args.steps, args.workers, args.compiled))
                say(f"training {backbone}, {task.crops}", begin)
                book.training(rows, args.workers)
    if "scale" in args.parts:
        book.scale(stages.scale(scans, args.scans, args.work, args.rounds))
        say(f"scale {args.scans}", begin)
    if "ingest" in args.parts:
        book.ingest(stages.ingest(scans, args.pictures, args.work, os.cpu_count() or 1))
        say("ingest", begin)
    if "evaluation" in args.parts:
        book.evaluation(stages.evaluation(args.rounds))
        say("evaluation", begin)
    print(book.path)


def say(what: str, begin: float) -> None:
    """A plain line on how far it is."""
    print(f"{time.monotonic() - begin:6.0f} s  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
