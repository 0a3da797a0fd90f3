# What differs where a cluster runs the jobs, and what a killed Snakemake has left behind.
import fcntl
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError


def on_cluster():
    """Whether jobs run elsewhere: here is the process that submits them, or one of them.

    Known already while this file is read: what is submitted has a number of nodes, what runs here one of cores.
    """
    return workflow.remote_exec or workflow.resource_settings.nodes is not None


def grows(value):
    """Memory or minutes of a rule: twice as much at the second try, three times at the third."""
    return lambda wildcards, attempt: value * attempt


def time_flag(resources):
    """Inside of a cluster's job, stop and save by oneself before the scheduler stops it; nowhere else is there an end.

    What is left over is for reading the scans before the clock starts, and for the end of a step.
    """
    if not workflow.remote_exec:
        return ""
    return f" --max-minutes {max(resources.runtime * 0.5, resources.runtime - 10):g}"


def lift_gpu_limit():
    """On a cluster the limit of profiles/default, one GPU in use at a time, is that of a job, and as high as its rule's.

    A profile's key overwrites the same key of another, so profiles/slurm has no say in it.
    """
    asked = workflow.resource_settings.overwrite_resources.values()
    wanted = [rule["gpu"] for rule in asked if "gpu" in rule]
    counts = [int(getattr(gpu, "value", gpu)) for gpu in wanted]
    workflow.register_resource("gpu", max([1, *counts]))


def processes_flag(resources):
    """As many processes as GPUs, on each machine."""
    per_machine = resources.gpu // resources.get("nodes", 1)
    return f" --processes {per_machine}" if per_machine > 1 else ""


def over_nodes(wildcards, resources):
    """Starts a command on every machine of a job that has several."""
    nodes = resources.get("nodes", 1)
    return (
        f"srun --overlap --nodes {nodes} --ntasks-per-node 1 --kill-on-bad-exit=1 "
        if nodes > 1
        else ""
    )


def probe_group(wildcards):
    """Scores of frozen features take seconds to a minute: on a cluster several are one job. Fine-tuning stands alone."""
    return None if wildcards.arm.endswith("-finetune") else "probe"


def forget_dead_lock():
    """Take away the lock that a Snakemake killed by force has left, so that the same command simply goes on.

    Returns our own lock, to be held as long as this process lives: the system frees it with its owner, so whoever gets
    it knows that no other Snakemake works in this folder. Whoever does not get it leaves all as it is. A cluster's job
    must not hold it: it may outlive the Snakemake that has submitted it, and would shut out the next one.
    """
    if workflow.remote_exec:
        return None
    folder = Path(".snakemake")
    folder.mkdir(exist_ok=True)
    own = (folder / "octdino.lock").open("w")
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another works here, or the file system cannot say
        return own
    for path in (folder / "locks").glob("*.lock"):
        path.unlink(missing_ok=True)
    return own


def end_leftover_jobs():
    """End the jobs that a Snakemake killed by force has left on the cluster, before they are submitted once more.

    Two jobs would write the same files, and the second trainer of a run is refused by the first one's lock. Training
    saves when it is told to end, so the job that follows goes on from there. Nobody else works in this folder:
    Snakemake has locked it.
    """
    if workflow.remote_exec or not workflow.non_local_exec:
        return
    generic = hasattr(workflow.executor_settings, "status_cmd")
    alive = generic_jobs if generic else slurm_jobs
    found = alive()
    if not found:
        return
    print(
        f"octdino: a killed Snakemake has left jobs {', '.join(found)}; they save and end before anything begins",
        file=sys.stderr,
    )
    cancel = workflow.executor_settings.cancel_cmd if generic else "scancel"
    subprocess.run([*shlex.split(cancel), *found])
    end = time.monotonic() + 300
    while found and time.monotonic() < end:
        time.sleep(1)
        found = alive()
    if found:
        raise WorkflowError(f"jobs {', '.join(found)} do not end; cancel them by hand")


def slurm_jobs():
    """One's own jobs that Snakemake (which names them by a UUID) has submitted from this folder."""
    listed = subprocess.run(
        ["squeue", "-h", "--me", "-o", "%A %j %Z"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    here, uuid = Path.cwd().resolve(), re.compile(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    )
    return sorted(
        {
            job
            for job, name, folder in rows
            if uuid.fullmatch(name) and Path(folder).resolve() == here
        }
    )


def generic_jobs():
    """Jobs that have not written down how they ended (profiles/generic), and that the scheduler still has."""
    status = workflow.executor_settings.status_cmd
    started = Path(".snakemake", "generic").glob("*")
    waiting = sorted(path.name for path in started if not path.read_text().strip())
    said = {
        job: subprocess.run(
            [*shlex.split(status), job], stdout=subprocess.PIPE, text=True
        ).stdout
        for job in waiting
    }
    return [job for job, text in said.items() if text.strip() == "running"]


if on_cluster():
    lift_gpu_limit()
