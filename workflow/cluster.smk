# What differs where a cluster runs the jobs.


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


if on_cluster():
    lift_gpu_limit()
