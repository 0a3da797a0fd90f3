"""trackio: its database on this machine, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL names another place."""

import math
from collections.abc import Mapping
from typing import Any

from octdino.tracking.tracker import Tracked


class TrackioRun:
    """One run of trackio, which finds a run to be resumed by its name: the latest one of that name."""

    def __init__(self, run: Tracked, run_id: str) -> None:
        import trackio

        self.run_id = run.name
        self._run: Any = trackio.init(
            project=run.project,
            name=run.name,
            group=run.group,
            config=run.config,
            resume="allow" if run_id else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the finite metrics of a step; its JSON has no others."""
        self._run.log({name: value for name, value in metrics.items() if math.isfinite(value)}, step=step)

    def finish(self, *, completed: bool) -> None:
        """Write what is pending."""
        self._run.finish()


def start(run: Tracked, run_id: str) -> TrackioRun:
    """Start a run, or resume the one of the same name."""
    return TrackioRun(run, run_id)
