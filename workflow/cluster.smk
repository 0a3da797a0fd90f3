# What differs where a cluster runs the jobs, and what a killed Snakemake has left behind.
import fcntl
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError


def on_cluster():
    """Whether jobs run elsewhere: here is the process that submits them, or one of them."""
    return workflow.remote_exec or workflow.non_local_exec


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
    saves when it is told to end, so the job that follows goes on from there.
    """
    ids = set()
    for path in Path(".snakemake", "incomplete").rglob(
        "*"
    ):  # what has begun and not ended
        if path.is_file():
            try:
                ids.add(json.loads(path.read_text()).get("external_jobid"))
            except (ValueError, AttributeError):  # not a cluster's job
                continue
    alive = jobs_alive(ids - {None}) if on_cluster() else []
    if not alive:
        return
    print(
        f"octdino: a killed Snakemake has left jobs {', '.join(alive)}; they save and end before anything begins",
        file=sys.stderr,
    )
    cancel = getattr(workflow.executor_settings, "cancel_cmd", None)
    subprocess.run([*(shlex.split(cancel) if cancel else ["scancel"]), *alive])
    end = time.monotonic() + 300
    while alive and time.monotonic() < end:
        time.sleep(1)
        alive = jobs_alive(alive)
    if alive:
        raise WorkflowError(f"jobs {', '.join(alive)} do not end; cancel them by hand")


def jobs_alive(ids):
    """Those of these jobs that the scheduler still has: by squeue on SLURM, else by the profile's status command."""
    if hasattr(workflow.executor_settings, "status_cmd"):
        command = workflow.executor_settings.status_cmd
        said = {
            job: subprocess.run(
                [*shlex.split(command), job], stdout=subprocess.PIPE, text=True
            ).stdout
            for job in (ids if command else ())
        }
        return sorted(job for job, text in said.items() if text.strip() == "running")
    # An old id may be another's by now: of one's own jobs, those that work in this very folder.
    listed = subprocess.run(
        ["squeue", "-h", "--me", "-o", "%i %Z"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    here = Path.cwd().resolve()
    return sorted(
        job for job, folder in rows if job in ids and Path(folder).resolve() == here
    )
