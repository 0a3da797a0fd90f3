#!/usr/bin/env python3
"""Commands submit, status and cancel for profiles/generic: PBS (and Torque) or SGE, whichever is installed.

Each job writes its exit code to a file, so the scheduler is only asked whether the job still exists: schedulers differ
in how long they list ended jobs. A job that no longer exists and has written no code was killed.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

# Options for job name, log file, cores, total memory in MB, minutes and GPUs. Edit these where a site has other names
# for its resources.
SUBMIT = {
    "pbs": "qsub -V -N {name} -j oe -o {log} -l select=1:ncpus={cores}:mem={memory}mb{gpus} -l walltime={minutes}:00",
    "sge": "qsub -terse -V -N {name} -j y -o {log} -pe smp {cores} -l h_vmem={share}M -l h_rt={seconds}{gpus}",
}
GPUS = {"pbs": ":ngpus={}", "sge": " -l gpu={}"}
ASK = {"pbs": "qstat -f {}", "sge": "qstat -j {}"}
CANCEL = {"pbs": "qdel", "sge": "qdel"}
ENDED = {"pbs": r"job_state = [FC]\b", "sge": r"(?!)"}  # among those it still lists
GONE = r"[Uu]nknown [Jj]ob|has finished|do not exist"  # any other error: the scheduler is busy or down
CODES = Path(".snakemake", "generic")  # in the working directory, on a shared disk
# A scheduler that ends a job sends TERM to all of its processes. Both shells ignore it, so that the job does not end
# before training has saved.
SCRIPT = """#!/bin/sh
cd {folder} || exit 1
trap : TERM
sh -c 'trap : TERM; . "$0"' {job}
code=$?
id=${{PBS_JOBID:-$JOB_ID}}
echo $code > {codes}/"${{id%%.*}}"
exit $code
"""
PATIENCE = 20.0  # seconds until a file of a job is visible on this machine


def system() -> str:
    """Return the kind of scheduler: pbs or sge."""
    if named := os.environ.get("OCTDINO_SCHEDULER"):
        return named
    return "sge" if "SGE_ROOT" in os.environ else "pbs"


def number(job: str) -> str:
    """Return the job id in `123.server` or `123`."""
    found = re.search(r"\d+", job)
    if not found:
        sys.exit(f"no job id in {job!r}")
    return found[0]


def submit(jobscript: str) -> None:
    """Submit a job script of Snakemake, whose resources are in a comment, and print the job's id."""
    text = Path(jobscript).read_text()
    needs = json.loads(re.search(r"^# properties = (.*)$", text, re.MULTILINE)[1])
    resources, cores = needs["resources"], int(needs["threads"])
    logs = Path("logs", "cluster").absolute()
    logs.mkdir(parents=True, exist_ok=True)
    CODES.mkdir(parents=True, exist_ok=True)
    name = f"octdino.{needs.get('rule') or needs.get('groupid')}"
    values = {
        "name": name,
        "log": logs / f"{name}.{int(time.time())}.{needs['jobid']}.log",
        "cores": cores,
        "memory": int(resources["mem_mb"]),
        "share": -(-int(resources["mem_mb"]) // cores),
        "minutes": int(resources["runtime"]),
        "seconds": 60 * int(resources["runtime"]),
        "gpus": GPUS[system()].format(resources["gpu"]) if resources.get("gpu") else "",
    }
    filled = {key: value if key == "gpus" else shlex.quote(str(value)) for key, value in values.items()}
    command = shlex.split(SUBMIT[system()].format(**filled))
    command += shlex.split(os.environ.get("OCTDINO_SUBMIT_OPTIONS", ""))
    script = SCRIPT.format(
        folder=shlex.quote(str(Path.cwd())), job=shlex.quote(str(Path(jobscript).absolute())), codes=CODES
    )
    begin = time.time() - 1  # file times can be coarse
    done = subprocess.run(command, input=script, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    job = number(done.stdout)
    code = CODES / job
    if not code.exists() or code.stat().st_mtime < begin:  # of an old job with the same number
        code.write_text("")
    if noted := os.environ.get("OCTDINO_SUBMITTED"):  # for cancellation if Snakemake is killed
        with Path(noted).open("a") as submitted:
            submitted.write(f"{job}\n")
    print(job)


def status(job: str) -> str:
    """Return the state of a job for Snakemake: running, success or failed."""
    if (code := code_of(job)) is None and not is_there(job):
        end = time.monotonic() + float(os.environ.get("OCTDINO_PATIENCE", PATIENCE))
        while (code := code_of(job)) is None and time.monotonic() < end:
            time.sleep(0.5)
        if code is None:
            code = "killed"
            (CODES / number(job)).write_text(code)
    return {None: "running", "0": "success"}.get(code, "failed")


def code_of(job: str) -> str | None:
    """Return the exit code that a job has written, or None."""
    path = CODES / number(job)
    return (path.read_text().strip() or None) if path.exists() else None


def is_there(job: str) -> bool:
    """Whether the scheduler lists the job, or gives no answer."""
    done = subprocess.run(shlex.split(ASK[system()].format(job)), capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        return not re.search(GONE, done.stdout + done.stderr)
    return not re.search(ENDED[system()], done.stdout, re.MULTILINE)


def main() -> None:
    """Run submit, status or cancel, by the name of the link with which this file is called."""
    called, args = Path(sys.argv[0]).name, sys.argv[1:]
    if called == "submit":
        submit(args[-1])
    elif called == "status":
        print(status(args[-1]))
    else:
        subprocess.run([CANCEL[system()], *args])


main()
