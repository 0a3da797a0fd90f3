"""Stands in for the commands of PBS, LSF and SGE, by the name it is called with: jobs are processes of this machine."""

import fnmatch
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_SCHEDULER"])
KIND = os.environ["FAKE_SCHEDULER_KIND"]
VARIABLE = {"pbs": "PBS_JOBID", "lsf": "LSB_JOBID", "sge": "JOB_ID"}[KIND]
# The wrapper notes the exit code, which LSF tells; a job that is killed notes none.
WRAPPER = 'sh "$0"; code=$?; echo $code > "$0.code"; exit $code'


def submit(args: list[str]) -> None:
    """Run the script on standard input, or LSF's command, in a session of its own, as schedulers do."""
    job = 100 + len(list(STATE.glob("*.json")))
    script = STATE / f"{job}.sh"
    script.write_text(args[-1] if KIND == "lsf" else sys.stdin.read())
    shown = {"pbs": f"{job}.server", "lsf": f"{job}", "sge": f"{job}"}[KIND]
    folder = args[args.index("-cwd") + 1] if "-cwd" in args else "/"
    with (STATE / f"{job}.out").open("w") as said:
        env = {**os.environ, VARIABLE: shown}
        process = subprocess.Popen(
            ["sh", "-c", WRAPPER, str(script)], start_new_session=True, env=env, stdout=said, stderr=said, cwd=folder
        )
    (STATE / f"{job}.json").write_text(json.dumps({"pid": process.pid, "args": args}))
    print({"pbs": shown, "lsf": f"Job <{job}> is submitted to default queue <normal>.", "sge": shown}[KIND])


def submitted(job: str) -> dict[str, object]:
    """What is known of a job."""
    return json.loads((STATE / f"{job}.json").read_text())


def running(job: str) -> bool:
    """Whether the job's first process is alive."""
    path = Path("/proc", str(submitted(job)["pid"]), "stat")
    return path.exists() and path.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def ask(job: str) -> None:
    """As qstat answers."""
    alive = (STATE / f"{job}.json").exists() and running(job)
    if KIND == "pbs":
        print(f"Job Id: {job}.server\n    job_state = {'R' if alive else 'F'}")
    else:
        print(f"job_number: {job}") if alive else sys.exit(f"Following jobs do not exist:\n{job}")


def list_by_name(args: list[str]) -> None:
    """As `bjobs -noheader -o FIELDS [-a] -J PATTERN` answers; with -aJ or -a, jobs that have ended, too."""
    (option,) = {"-J", "-aJ"} & {*args}
    pattern, fields = args[args.index(option) + 1], args[args.index("-o") + 1].split()
    found = 0
    for path in sorted(STATE.glob("*.json")):
        job = path.stem
        given = submitted(job)["args"]
        if not fnmatch.fnmatch(given[given.index("-J") + 1], pattern):
            continue
        alive, code = running(job), STATE / f"{job}.sh.code"
        if option == "-J" and not alive:
            continue
        state = "RUN" if alive else "DONE" if code.exists() and code.read_text().strip() == "0" else "EXIT"
        print(*({"jobid": job, "stat": state}[field] for field in fields))
        found += 1
    if not found:
        print("No unfinished job found", file=sys.stderr)
        sys.exit(255)


def main() -> None:
    """qsub, bsub; qstat, bjobs; qdel, bkill; badmin and lsclusters, of which the plugin reads LSF's configuration."""
    called, args = Path(sys.argv[0]).name, sys.argv[1:]
    if called in ("qsub", "bsub"):
        submit(args)
    elif called == "badmin":
        print(f"MBD configuration at ...\n        LSB_SHAREDIR = {STATE}\n        LSF_CONFDIR = {STATE}")
    elif called == "lsclusters":
        print("CLUSTER_NAME STATUS MASTER_HOST ADMIN HOSTS SERVERS\nfake ok here root 1 1")
    elif (STATE / "down").exists():
        sys.exit("cannot connect to server")
    elif called == "bjobs":
        list_by_name(args)
    elif called == "qstat":
        ask(args[-1].split(".")[0])
    else:
        for job in args:
            if running(job):
                os.killpg(submitted(job)["pid"], signal.SIGTERM)


main()
