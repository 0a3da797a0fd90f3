"""The internals of Snakemake that the workflow uses: each is named here, and its absence is a failure that names it.

`snakemake <10` in pyproject.toml stands for this list: whoever lifts the limit begins with these tests.
"""

import dataclasses
import inspect
import re
import tomllib
from pathlib import Path

import pytest
from snakemake.api import DAGApi, SnakemakeApi, Workflow
from snakemake.dag import DAG
from snakemake.exceptions import LockException, WorkflowError
from snakemake.persistence.file import FilePersistence
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.settings.types import ResourceSettings
from snakemake_executor_plugin_cluster_generic import ExecutorSettings
from snakemake_executor_plugin_slurm import Executor
from snakemake_interface_executor_plugins.settings import CommonSettings

from tests.workflow.conftest import ROOT

WORKFLOW = {
    "configfiles",
    "cores",
    "current_basedir",
    "dag",
    "dag_settings",
    "dryrun",
    "execute",
    "executor_settings",
    "is_main_process",
    "persistence",
    "register_resource",
    "remote_exec",
    "resource_settings",
    "scheduler",
}


def test_every_attribute_of_workflow_that_is_used_is_named_here() -> None:
    files = [*(ROOT / "octdino").glob("snakemake_*.py"), ROOT / "workflow/Snakefile"]
    files += (ROOT / "workflow").rglob("*.smk")
    text = re.sub(r"#.*", "", "\n".join(path.read_text() for path in files))
    assert set(re.findall(r"\bworkflow\.(?!rst\b)(\w+)", text)) == WORKFLOW


def test_workflow_has_them(tmp_path: Path) -> None:
    with SnakemakeApi() as api:
        opened = api.workflow(ResourceSettings(cores=1, nodes=1), snakefile=ROOT / "Snakefile", workdir=tmp_path)
        workflow = opened._get_workflow()
        opened._workflow_store = workflow  # it is torn down at the end
        missing = sorted(name for name in WORKFLOW - {"current_basedir"} if not hasattr(workflow, name))
        assert not missing, f"snakemake.workflow.Workflow has no {', '.join(missing)}"
        assert hasattr(type(workflow), "current_basedir")  # while a Snakefile is read
        assert workflow.remote_exec is False
        assert workflow.is_main_process is True
        workflow.register_resource("gpu", 3)
        assert workflow.global_resources["gpu"].value == 3


def test_the_graph_of_jobs_says_what_is_up_to_date() -> None:
    """octdino/snakemake_results.py names results that were written or are up to date."""
    missing = [name for name in ("jobs", "needrun", "finished") if not hasattr(DAG, name)]
    assert not missing, f"snakemake.dag.DAG has no {', '.join(missing)}"


def test_params_are_computed_again_before_a_job_starts() -> None:
    """octdino/snakemake_settings.py writes the file of settings then, when the scheduler exists."""
    source = inspect.getsource(JobScheduler.schedule)
    assert source.index("job.reset_params_and_resources()") < source.index("self.run(")
    assert "self._scheduler = None" in inspect.getsource(Workflow)


def test_a_run_is_started_by_keywords_and_through_the_instance() -> None:
    """octdino/snakemake_locks.py puts a function of its own in the place of `workflow.execute`."""
    assert "executor_plugin" in inspect.signature(Workflow.execute).parameters
    assert re.search(r"\bworkflow\.execute\(\s*executor_plugin=", inspect.getsource(DAGApi.execute_workflow))


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (ResourceSettings, {"nodes", "overwrite_resources"}),
        (CommonSettings, {"dryrun_exec", "touch_exec"}),
        (ExecutorSettings, {"status_cmd", "cancel_cmd"}),
    ],
)
def test_settings_have_the_fields_that_are_read(owner: type, names: set[str]) -> None:
    missing = sorted(names - {field.name for field in dataclasses.fields(owner)})
    assert not missing, f"{owner.__module__}.{owner.__name__} has no {', '.join(missing)}"


@pytest.mark.parametrize(
    ("owner", "assigned"),
    [(FilePersistence, "_lockfile"), (JobScheduler, "_executor"), (Executor, "run_uuid")],
)
def test_objects_have_the_attributes_that_are_read(owner: type, assigned: str) -> None:
    found = re.search(rf"\bself\.{assigned} = ", inspect.getsource(owner))
    assert found, f"{owner.__module__}.{owner.__name__} sets no {assigned}"


def test_a_run_has_the_scheduler_and_its_lock_before_onstart() -> None:
    """`onstart` writes the lock files and the executor's run down, and replaces the scheduler's handler of SIGTERM."""
    source = inspect.getsource(Workflow.execute)
    order = [source.index(part) for part in ("persistence.lock()", "JobScheduler(", "self._onstart(", ".schedule()")]
    assert order == sorted(order)
    assert "signal.signal(signal.SIGTERM, self.exit_gracefully)" in inspect.getsource(JobScheduler.__init__)
    assert issubclass(LockException, WorkflowError)


def test_the_version_is_limited_while_internals_are_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (needed,) = (each for each in project["dependencies"] if re.match(r"snakemake\b(?!-)", each))
    assert needed.endswith(",<10")
