"""Fake modules wandb, mlflow and trackio with the signatures that the packages publish; they record their calls."""

import sys
import types
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Run:
    """What a tracker was told of one run; `parts` are the processes that logged to it."""

    project: str
    name: str
    config: dict[str, Any]
    group: Any = None
    parts: int = 1
    ends: list[Any] = field(default_factory=list)
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def steps(self) -> list[int]:
        """Return the steps in the order of logging."""
        return [step for step, _ in self.rows]


class Trackers:
    """The fake modules: runs by tracker and by the id that it gave them."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Run]] = {"wandb": {}, "mlflow": {}, "trackio": {}}
        self.modules = {
            "wandb": types.ModuleType("wandb"),
            "mlflow": types.ModuleType("mlflow"),
            "mlflow.entities": types.ModuleType("mlflow.entities"),
            "mlflow.exceptions": types.ModuleType("mlflow.exceptions"),
            "alembic": types.ModuleType("alembic"),
            "sqlalchemy": types.ModuleType("sqlalchemy"),
            "trackio": types.ModuleType("trackio"),
        }
        self._wandb()
        self._mlflow()
        self._trackio()

    def only(self, tracker: str) -> Run:
        """Return the only run of a tracker."""
        (run,) = self.runs[tracker].values()
        return run

    def _wandb(self) -> None:
        runs = self.runs["wandb"]
        fake: Any = self.modules["wandb"]

        class WandbRun:
            def __init__(self, run: Run) -> None:
                self.run = run

            def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
                assert step is not None
                self.run.rows.append((step, data))

            def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
                self.run.ends.append(exit_code)

        def settings(
            *, console: str, silent: bool, disable_git: bool, save_code: bool, init_timeout: float
        ) -> dict[str, Any]:
            return {"console": console, "save_code": save_code}

        def init(
            *, project: str, name: str, id: str, group: str, job_type: str, config: dict[str, Any],  # noqa: A002
            resume: str, reinit: str, settings: dict[str, Any],
        ) -> WandbRun:  # fmt: skip
            assert (resume, settings) == ("allow", {"console": "off", "save_code": False})
            if id in runs:
                runs[id].parts += 1
            return WandbRun(runs.setdefault(id, Run(project, name, config, group)))

        fake.init, fake.Settings = init, settings

    def _mlflow(self) -> None:
        runs, experiments = self.runs["mlflow"], {}

        class MlflowException(Exception):  # noqa: N818  its name in MLflow
            pass

        @dataclass
        class Metric:
            key: str
            value: float
            timestamp: int
            step: int

        @dataclass
        class Param:
            key: str
            value: str

        class MlflowClient:
            def __init__(self, tracking_uri: str | None = None) -> None:
                assert tracking_uri == "sqlite:///mlflow.db"

            def get_experiment_by_name(self, name: str) -> Any:
                found = experiments.get(name)
                return found and types.SimpleNamespace(experiment_id=found)

            def create_experiment(self, name: str) -> str:
                if name in experiments:
                    raise MlflowException("RESOURCE_ALREADY_EXISTS")
                experiments[name] = f"number {len(experiments)} {name}"
                return experiments[name]

            def create_run(self, experiment_id: str, tags: dict[str, str], run_name: str) -> Any:
                run_id = f"run {len(runs)}"
                runs[run_id] = Run(experiment_id.split()[-1], run_name, {}, tags["group"])
                return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

            def update_run(self, run_id: str, status: str) -> None:
                runs[run_id].parts += 1

            def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
                assert len(params) <= 100
                assert all(len(param.value) <= 500 for param in params)
                runs[run_id].config |= {param.key: param.value for param in params}
                if metrics:
                    runs[run_id].rows.append((metrics[0].step, {each.key: each.value for each in metrics}))

            def set_terminated(self, run_id: str, status: str) -> None:
                runs[run_id].ends.append(status)

        module, entities, errors = (self.modules[name] for name in ("mlflow", "mlflow.entities", "mlflow.exceptions"))  # type: Any, Any, Any
        module.MlflowClient, entities.Metric, entities.Param = MlflowClient, Metric, Param
        errors.MlflowException = MlflowException

    def _trackio(self) -> None:
        runs = self.runs["trackio"]
        fake: Any = self.modules["trackio"]

        class TrackioRun:
            def __init__(self, run: Run) -> None:
                self.run = run

            def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
                assert step is not None
                self.run.rows.append((step, metrics))

            def finish(self) -> None:
                self.run.ends.append(None)

        def init(
            *, project: str, name: str, group: str, config: dict[str, Any], resume: str, embed: bool,
            auto_log_gpu: bool, auto_log_cpu: bool,
        ) -> TrackioRun:  # fmt: skip
            same = [run for run in runs.values() if run.name == name]
            if resume == "allow" and same:
                same[-1].parts += 1
                return TrackioRun(same[-1])
            runs[f"{name} {len(runs)}"] = run = Run(project, name, config, group)
            return TrackioRun(run)

        fake.init = init


def install_fake_trackers(monkeypatch: pytest.MonkeyPatch) -> Trackers:
    """Put the fake modules in place of the packages, with a clean environment; return what they record."""
    fakes = Trackers()
    for name, module in fakes.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("WANDB_MODE", "WANDB_ERROR_REPORTING", "MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY",
                 "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):  # fmt: skip
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)
    return fakes
