# Jobs on a cluster: resources, time limit, processes, groups of jobs.
from octdino.config import memory_mb


def on_cluster():
    """Whether jobs run on a cluster: this process submits them, or is one of them.

    Available while this file is read: submitted jobs have a number of nodes, local ones of cores.
    """
    return workflow.remote_exec or workflow.resource_settings.nodes is not None


def grows(value):
    """Return memory or minutes that grow with the attempt: twice as much at the second, three times at the third."""
    return lambda wildcards, attempt: value * attempt


def grows_with_scans(rule):
    """Return the memory of a rule's jobs in MB, by the number and size of the scans, growing with the attempt."""
    return lambda wildcards, attempt: memory_mb(settings, scans(), rule) * attempt


def time_flag(resources):
    """Return the flag with which a job on a cluster saves and stops before its time limit; elsewhere there is none.

    The remaining minutes are for reading the scans before the clock starts, and for the end of a step.
    """
    if not workflow.remote_exec:
        return ""
    return f" --max-minutes {max(resources.runtime * 0.5, resources.runtime - 10):g}"


def lift_gpu_limit():
    """Raise the GPU limit of profiles/default (one at a time) on a cluster to the GPUs of the largest job.

    A profile's key overwrites the same key of another profile, so profiles/slurm cannot set it.
    """
    asked = workflow.resource_settings.overwrite_resources.values()
    wanted = [rule["gpu"] for rule in asked if "gpu" in rule]
    counts = [int(getattr(gpu, "value", gpu)) for gpu in wanted]
    workflow.register_resource("gpu", max([1, *counts]))


def processes_flag(resources):
    """Return the flag for one process per GPU of each machine."""
    per_machine = resources.gpu // resources.get("nodes", 1)
    return f" --processes {per_machine}" if per_machine > 1 else ""


def over_nodes(wildcards, resources):
    """Return the srun command that starts a program on every machine of a job with several."""
    nodes = resources.get("nodes", 1)
    return (
        f"srun --overlap --nodes {nodes} --ntasks-per-node 1 --kill-on-bad-exit=1 "
        if nodes > 1
        else ""
    )


def probe_group(wildcards):
    """Return the group of a classifier on frozen features, which takes seconds: on a cluster several are one job."""
    return None if wildcards.arm.endswith("-finetune") else "probe"


if on_cluster():
    lift_gpu_limit()
