"""Weights & Biases: offline below `wandb/` of the working directory, unless WANDB_MODE is set."""

import os
import uuid
from collections.abc import Mapping
from typing import Any

from octdino.tracking.tracker import Tracked

START_SECONDS = 30.0  # to wait for a server


class WandbRun:
    """One run of W&B; a resumed one has the same id, under which `wandb sync` joins its parts."""

    def __init__(self, run: Tracked, run_id: str) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else wandb sends reports of its errors to its makers
        import wandb

        self.run_id = run_id or uuid.uuid4().hex[:12]
        self._run: Any = wandb.init(
            project=run.project,
            name=run.name,
            id=self.run_id,
            group=run.group,
            job_type=run.stage,
            config=run.config,
            resume="allow",
            reinit="create_new",
            # Neither the log, in which are scan ids, nor source code and its address leave the machine.
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False, init_timeout=START_SECONDS
            ),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def finish(self, *, completed: bool) -> None:
        """Write what is pending; a run that was stopped is shown as such until it resumes."""
        self._run.finish(exit_code=0 if completed else 1)


def start(run: Tracked, run_id: str) -> WandbRun:
    """Start a run, or resume the one with `run_id`."""
    return WandbRun(run, run_id)
