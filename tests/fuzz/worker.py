"""A process that runs many cases, one after the other; it says which one begins and how each ended.

By hand: `python -m tests.fuzz.worker SEED …` runs these cases and prints all that is known of them.
"""

import os
import resource
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

ADDRESS_SPACE = 6 << 30  # bytes beyond what the process has, so that a request without bounds fails and not the machine


def prepare() -> None:
    """Load what every verb needs once, and bound the memory."""
    import socket

    import octdino.audit.leakage_audit
    import octdino.classify
    import octdino.classify.clinical
    import octdino.cohort.ingest
    import octdino.evaluate
    import octdino.explain
    import octdino.pretrain
    import octdino.report  # noqa: F401

    def refuse(*_: object) -> None:
        raise AssertionError("the network is asked")

    socket.socket.connect = refuse
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, resource.RLIM_INFINITY))


def build(root: Path) -> None:
    """Build the world at `root`."""
    from tests.fuzz import world

    root.mkdir(parents=True)
    os.chdir(root)
    world.build(root)


def work(pristine: Path, root: Path, first: int, step: int, end: int) -> None:
    """Run the cases `first`, `first + step`, … below `end`; a line before and a line after each."""
    from tests.fuzz.cases import run_case
    from tests.fuzz.copies import World

    prepare()
    told = os.fdopen(os.dup(1), "w", buffering=1)
    world = World(pristine, root)
    for seed in range(first, end, step):
        print(f"begin {seed}", file=told)
        print(f"end {run_case(seed, world).line()}", file=told)


def main() -> None:
    """What the driver asks for, or cases by hand."""
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]))
    elif sys.argv[1] == "work":
        work(Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))
    else:
        from tests.fuzz.cases import run_case
        from tests.fuzz.copies import World

        with tempfile.TemporaryDirectory() as folder:
            kept = Path(os.environ.get("OCTDINO_FUZZ_WORLD") or f"{folder}/world")
            if not kept.exists():
                build(kept)
            prepare()
            world = World(kept, Path(folder) / "copy")
            for seed in map(int, sys.argv[1:]):
                outcome = run_case(seed, world)
                print(outcome.line().replace("\\n", "\n"))
            os.chdir("/")


if __name__ == "__main__":
    main()
