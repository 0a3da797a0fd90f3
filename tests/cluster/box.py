"""A SLURM of one node on loopback, in a folder of its own: no systemd, no cgroups, no database."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
ETC = Path("/etc/slurm")

# cgroup/v1 is inert as long as no other plugin uses cgroups; 22.05 knows no "disabled".
FILES = {"cgroup.conf": "CgroupPlugin=cgroup/v1\n"}

# AuthInfo: cred_expire is also the time before a requeued job starts again (120 s, at least 5).
# SlurmdParameters: more processors and memory than there are, so that jobs need not wait for each other.
CONF = """\
ClusterName=octdino
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
MinJobAge=300
KillWait=10
UnkillableStepTimeout=30
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=32 RealMemory=256000 Gres=gpu:4 State=UNKNOWN
DefMemPerCPU=500
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no SLURM can be brought up here, or None."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian keeps the daemons
    if absent := [name for name in PROGRAMS if not shutil.which(name)]:
        return f"not installed: {', '.join(absent)}"
    if os.geteuid():
        return "slurmd starts other users' jobs: needs root"
    if any((ETC / name).exists() and not (ETC / name).is_symlink() for name in ("slurm.conf", "gres.conf")):
        return f"{ETC} is a real cluster's"
    return None


class Box:
    """The three daemons; `up` and `down` touch nothing else but symbolic links in /etc/slurm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = socket.gethostname().split(".")[0]
        self.links: list[Path] = []

    def up(self) -> None:
        """Start munged, slurmctld and slurmd, and wait until the node takes jobs."""
        for name in ("munge", "state", "spool", "log", "run"):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o700)
        (self.folder / "run").chmod(0o711)  # munge wants to be let in all the way to its socket
        self._write()
        key = self.folder / "munge/munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        self._start(
            "munged", f"--key-file={key}", f"--socket={self.folder}/run/munge.socket",
            f"--pid-file={self.folder}/run/munged.pid", f"--log-file={self.folder}/munge/munged.log",
            f"--seed-file={self.folder}/munge/munged.seed",
        )  # fmt: skip
        self._start("slurmctld", "-f", f"{self.folder}/slurm.conf")
        self._start("slurmd", "-f", f"{self.folder}/slurm.conf", "-N", self.host)
        end = time.monotonic() + 30
        while "idle" not in said("sinfo", "-h", "-p", "cpu", "-o", "%T", check=False):
            if time.monotonic() > end:
                logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("log/*.log"))
                raise RuntimeError(f"the node did not become idle:\n{logs}")
            time.sleep(0.1)

    def _write(self) -> None:
        """The configuration, and links to it: jobs of the plugin forget SLURM_CONF and look in /etc/slurm."""
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        ports = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        # GPUs that can be asked for, with no device behind them: any different device files do.
        gpus = [f"NodeName={self.host} Name=gpu File=/dev/{name}\n" for name in ("null", "zero", "full", "random")]
        conf = CONF.format(host=self.host, folder=self.folder, ports=ports)
        ETC.mkdir(exist_ok=True)
        for name, text in {**FILES, "slurm.conf": conf, "gres.conf": "".join(gpus)}.items():
            (self.folder / name).write_text(text)
            link = ETC / name
            link.unlink(missing_ok=True)
            link.symlink_to(self.folder / name)
            self.links.append(link)

    def _start(self, program: str, *args: str) -> None:
        subprocess.run([program, *args], check=True, capture_output=True, timeout=60)

    def down(self) -> None:
        """Cancel the jobs, whose steps outlive slurmd, and stop the three daemons by the ids they wrote down."""
        end = time.monotonic() + 20
        while time.monotonic() < end and (jobs := said("squeue", "-h", "-o", "%A", check=False).split()):
            said("scancel", "--full", "--signal=KILL", *jobs, check=False)
            time.sleep(0.5)
        for program in ("slurmd", "slurmctld", "munged"):
            path = self.folder / f"run/{program}.pid"
            if path.exists() and Path(f"/proc/{path.read_text().strip()}/comm").exists():
                pid = int(path.read_text())
                assert Path(f"/proc/{pid}/comm").read_text().strip() == program
                os.kill(pid, 15)
                while time.monotonic() < end + 10 and Path(f"/proc/{pid}").exists():
                    time.sleep(0.1)
        for link in self.links:
            if link.is_symlink() and link.readlink().parent == self.folder:
                link.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)


def said(*command: str, check: bool = True) -> str:
    """What a command of SLURM prints."""
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60).stdout
