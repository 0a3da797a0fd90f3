"""Stands in for the commands of PBS, LSF and SGE, by the name it is called with: jobs are processes of this machine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_SCHEDULER"])
KIND = os.environ["OCTDINO_SCHEDULER"]
VARIABLE = {"pbs": "PBS_JOBID", "lsf": "LSB_JOBID", "sge": "JOB_ID"}[KIND]


def submit(args: list[str]) -> None:
    """Run the script on standard input in a session of its own, as schedulers do."""
    job = 100 + len(list(STATE.glob("*.json")))
    script = STATE / f"{job}.sh"
    script.write_text(sys.stdin.read())
    shown = {"pbs": f"{job}.server", "lsf": f"{job}", "sge": f"{job}"}[KIND]
    with (STATE / f"{job}.out").open("w") as said:
        env = {**os.environ, VARIABLE: shown}
        process = subprocess.Popen(
            ["sh", str(script)], start_new_session=True, env=env, stdout=said, stderr=said, cwd="/"
        )
    (STATE / f"{job}.json").write_text(json.dumps({"pid": process.pid, "args": args}))
    print({"pbs": shown, "lsf": f"Job <{job}> is submitted to default queue <normal>.", "sge": shown}[KIND])


def running(job: str) -> bool:
    """Whether the job's first process is alive."""
    path = Path("/proc", str(json.loads((STATE / f"{job}.json").read_text())["pid"]), "stat")
    return path.exists() and path.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def ask(job: str) -> None:
    """As each of them answers."""
    known, alive = (STATE / f"{job}.json").exists(), (STATE / f"{job}.json").exists() and running(job)
    if (STATE / "down").exists():
        sys.exit("cannot connect to server")
    if KIND == "pbs":
        print(f"Job Id: {job}.server\n    job_state = {'R' if alive else 'F'}")
    elif KIND == "lsf":
        print("RUN" if alive else "EXIT") if known else sys.exit(f"Job <{job}> is not found")
    else:
        print(f"job_number: {job}") if alive else sys.exit(f"Following jobs do not exist:\n{job}")


def main() -> None:
    """qsub, bsub; qstat, bjobs; qdel, bkill."""
    called, args = Path(sys.argv[0]).name, sys.argv[1:]
    if called in ("qsub", "bsub"):
        submit(args)
    elif called in ("qstat", "bjobs"):
        ask(args[-1].split(".")[0])
    else:
        for job in args:
            if running(job):
                os.killpg(json.loads((STATE / f"{job}.json").read_text())["pid"], signal.SIGTERM)


main()
