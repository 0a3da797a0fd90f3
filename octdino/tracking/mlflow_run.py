"""MLflow: `mlflow.db` in the working directory, unless MLFLOW_TRACKING_URI names a server or another store."""

import math
import os
import time
from collections.abc import Mapping

from octdino.tracking.tracker import Tracked, flat

PARAMETER_LENGTH = 500  # characters of a parameter, in every version of MLflow
PARAMETERS_PER_REQUEST = 100  # MLflow's limit
DEFAULTS = {  # of its environment
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else it sends usage data to its makers
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds; with MLflow's own limits a lost server is noticed after minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}


class MlflowRun:
    """One run of MLflow, in the experiment of the cohort's name."""

    def __init__(self, run: Tracked, run_id: str) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        store = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        self._client = MlflowClient(store)
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
            self.run_id = run_id
            return
        tags = {"stage": run.stage, "group": run.group}
        self.run_id = self._client.create_run(self._experiment(run.project), run_name=run.name, tags=tags).info.run_id
        self._log_config(flat(run.config))

    def _experiment(self, project: str) -> str:
        """Return the id of the experiment, which another job may be creating at this moment."""
        from mlflow.exceptions import MlflowException

        if (experiment := self._client.get_experiment_by_name(project)) is not None:
            return str(experiment.experiment_id)
        try:
            return str(self._client.create_experiment(project))
        except MlflowException:
            if (experiment := self._client.get_experiment_by_name(project)) is None:
                raise
            return str(experiment.experiment_id)

    def _log_config(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(key, value[:PARAMETER_LENGTH]) for key, value in values.items()]
        for first in range(0, len(params), PARAMETERS_PER_REQUEST):
            self._client.log_batch(self.run_id, params=params[first : first + PARAMETERS_PER_REQUEST])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the finite metrics of a step; some of MLflow's stores refuse others."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)  # ms
        finite = [Metric(name, value, now, step) for name, value in metrics.items() if math.isfinite(value)]
        self._client.log_batch(self.run_id, metrics=finite)

    def finish(self, *, completed: bool) -> None:
        """Set the state of the run: finished, or killed until it resumes."""
        self._client.set_terminated(self.run_id, "FINISHED" if completed else "KILLED")


def start(run: Tracked, run_id: str) -> MlflowRun:
    """Start a run, or resume the one with `run_id`."""
    return MlflowRun(run, run_id)
