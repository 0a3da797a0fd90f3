"""Results of the benchmarks as one Markdown file per machine."""

import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.device_checks import Check
from benchmarks.training import PARTS, Row
from octdino import __version__
from octdino.data.atomic_files import replacing

COHORT = 78_000  # scans in OLIVES
EPOCHS = 100


def machine() -> str:
    """Return the name of the GPU, or of the processor with its cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        model = None
    name = model[1].strip() if model else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} cores, {torch.backends.cpu.get_cpu_capability()}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, numbers right-aligned."""
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def hours(seconds: float) -> str:
    """Format seconds as two units: days and hours, or hours and minutes."""
    whole = round(seconds / 60)
    return f"{whole // 1440} d {whole % 1440 // 60} h" if whole >= 2880 else f"{whole // 60} h {whole % 60:02d} min"


def gigabytes(size: float) -> str:
    """Format bytes as GB with two decimals."""
    return f"{size / 1e9:.2f} GB"


@dataclass(frozen=True)
class ResultsFile:
    """The results file of one machine, rewritten after every part; other parts are kept."""

    out: Path
    machine: str
    given: Sequence[str]

    @property
    def path(self) -> Path:
        return self.out / (re.sub(r"[^a-z0-9]+", "-", self.machine.lower()).strip("-") + ".md")

    def write(self, title: str, text: str) -> None:
        """Add or replace the section of this title."""
        before = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        parts = {part.splitlines()[0]: part.strip() for part in before.split("\n## ")[1:]}
        made = f"Made by `{' '.join(['python -m benchmarks', *self.given])}`: octdino {__version__} ({commit()}), "
        made += f"torch {torch.__version__}, Python {platform.python_version()}."
        parts[title] = f"{title}\n\n{made}\n\n{text.strip()}"
        self.out.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary:
            temporary.write_text("\n\n## ".join([f"# {self.machine}", *parts.values()]) + "\n", encoding="utf-8")

    def checks(self, checks: Sequence[Check]) -> None:
        """Write the section of the checks of training on the device."""
        outcomes = {True: "passed", False: "**failed**", None: "not possible here"}
        rows = [[each.name, each.found, each.expected, outcomes[each.passed]] for each in checks]
        self.write("Checks of pretraining on the device", table(["check", "found", "expected", "outcome"], rows))

    def training(self, rows: list[Row], workers: int) -> None:
        """Write the section of the three training loops."""
        text = [f"The peers' DataLoaders have {workers} worker processes; 0: the training process reads the files."]
        text += ["*speedup*: of octdino's first row against this loop, median of the ratios of the same round.", ""]
        tasks = list(dict.fromkeys(row.task for row in rows))
        head = ["loop", "precision", "images/s", "speedup", *PARTS, "MFU", f"{EPOCHS} epochs of {COHORT:,}"]
        head.append("peak memory")
        for task in tasks:
            text += [f"**{task.backbone}, crops {task.crops}**", ""]
            body = []
            for row in (row for row in rows if row.task == task):
                cells = [row.loop.split(",")[0] + (", compiled" if "compiled" in row.loop else ""), row.precision]
                cells += [f"{row.rate:.3g}", f"{row.speedup:.2f}"]
                cells += [f"{100 * row.shares[part]:.1f} %" for part in PARTS]
                cells += [f"{100 * row.mfu:.0f} %", hours(EPOCHS * COHORT / row.rate)]
                body.append([*cells, gigabytes(row.memory)])
            text += [table(head, body), ""]
            bound = next(row.bound for row in rows if row.task == task)
            text += [f"octdino's augmentation takes {bound:.0f} times as long as moving its bytes once would.", ""]
        self.write(f"Pretraining: DINO, K = 4096, {rows[0].task.batch} images per step", "\n".join(text))

    def scale(self, rows: list[dict[str, Any]]) -> None:
        """Write the section of rates and memory by the number of scans."""
        names = {"images/s": "{:.3g}".format, "relative rate": "{:.3f}".format, "scans": "{:,}".format}
        self._simple("Pretraining by the number of scans (ResNet-18, 2 x 96 + 4 x 48, 16 images per step)", rows, names)

    def ingest(self, rows: list[dict[str, Any]]) -> None:
        """Write the section of ingest."""
        names = {"cohort": str, "scans/s": "{:.0f}".format, "scans": "{:,}".format}
        self._simple("Ingest: decode, check, resize, write", rows, names)

    def evaluation(self, rows: list[dict[str, Any]]) -> None:
        """Write the section of linear probes, kNN and bootstrap."""
        self._simple("Evaluation of features", rows, {"work": str, "seconds": "{:.2f}".format})

    def inference(self, rows: list[dict[str, Any]]) -> None:
        """Write the table of `octdino predict`."""
        formats: dict[str, Any] = {
            "files": str,
            "precision": str,
            "scans": "{:,}".format,
            "scans/s": "{:.0f}".format,
            "peak memory": gigabytes,
        }
        self._simple("Predicting new scans", rows, formats)

    def _simple(self, title: str, rows: list[dict[str, Any]], formats: dict[str, Any]) -> None:
        body = [[formats.get(key, gigabytes)(value) for key, value in row.items()] for row in rows]
        self.write(title, table(list(rows[0]), body))


def commit() -> str:
    """Return the short hash of the working tree's commit, with a star if the package has changes."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("*" if git("status", "--porcelain", "--", "octdino") else "")
