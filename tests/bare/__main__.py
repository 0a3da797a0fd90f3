"""Install octdino on a bare Debian in a chroot, in the three ways of docs/install.md, and run the first rules.

    python -m tests.bare [--root DIR] [STEP ...]            as root, with debootstrap; the steps: see STEPS

The root is made if it is not there, and kept: a second call takes minutes less. Only name resolution, certificates and
the configuration of pip and uv are taken from this machine, so that its package index is reached.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bare.containerfile import instructions

ROOT = Path(__file__).parents[2]
CERTIFICATES = "/etc/host-certificates.crt"  # in the chroot, where apt-get does not replace it
HOST_FILES = {  # and where they are in the chroot
    "/etc/resolv.conf": "/etc/resolv.conf",
    "/etc/pip.conf": "/etc/pip.conf",
    "/etc/uv": "/etc/uv",
    "/etc/ssl/certs/ca-certificates.crt": CERTIFICATES,
}
USER_FILES = (".config/pip", ".config/uv")  # below the home folder, here and there
HOME = "/srv/octdino"  # in the chroot
PASSED_ON = re.compile(r"(PIP|UV|SSL|REQUESTS|HTTPS?|NO|https?|no)_\w+|TERM")
APT = "apt-get update -qq && apt-get install -y -qq --no-install-recommends make python3-venv"
QUICK_TESTS = "tests/config/test_config.py tests/stats/test_thresholds.py tests/cli/test_run.py"
FEW = "--config 'cohort={phantom: {patients: 8}}'"
COHORT = f"--cores 2 --until cohort {FEW}"
STEPS = {
    "checkout": f"""
        cd ~/checkout
        make setup
        . .venv/bin/activate
        snakemake -n {FEW} | tail -20
        snakemake {COHORT}
        test -s results/phantom/cohort/manifest.csv""",
    "tests": f"""
        cd ~/checkout
        make setup-dev
        . .venv/bin/activate
        python -m pytest -n 0 {QUICK_TESTS}""",
    "wheel": f"""
        cd ~/checkout
        make dist
        rm -rf octdino-env ~/work
        python3 -m venv octdino-env
        . octdino-env/bin/activate
        pip install --quiet 'uv>=0.9.8'
        uv pip install --quiet --require-hashes --requirement requirements.lock
        uv pip install --quiet --no-deps dist/octdino-*-py3-none-any.whl
        mkdir ~/work
        cd ~/work
        octdino --version
        octdino presets
        octdino run -n {FEW} | tail -20
        octdino run {COHORT}
        test -s results/phantom/cohort/manifest.csv""",
    "container": "",  # the Containerfile says it
}


def main() -> int:
    """Run the steps; return 0, 1 with the name of the first that failed, or 2 where nothing can be run."""
    parser = argparse.ArgumentParser(prog="tests.bare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir(), "octdino-bare-debian"))
    args = parser.parse_args()
    if unknown := set(args.steps) - set(STEPS):
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    if reason := missing():
        print(f"cannot run: {reason}", file=sys.stderr)
        return 2
    suite, steps = instructions(ROOT / "Containerfile")
    if not (args.root / "usr/bin/apt-get").exists():
        command = ["debootstrap", "--variant=minbase", suite, str(args.root)]
        if subprocess.run(command, check=False).returncode or not (args.root / "usr/bin/apt-get").exists():
            print(f"cannot run: debootstrap made no Debian with apt-get in {args.root}", file=sys.stderr)
            return 2
    with mounted(args.root):
        copy_host_files(args.root)
        if chroot(args.root, APT):
            print("failed: apt-get")
            return 1
        copy_sources(inside(args.root, HOME) / "checkout")
        for name in args.steps or STEPS:
            print(f"\n== {name}", flush=True)
            if name == "container":
                copy_sources(args.root / "opt/octdino")
            for script in steps if name == "container" else [STEPS[name]]:
                if chroot(args.root, script):
                    print(f"failed: {name}")
                    return 1
    print("\npassed")
    return 0


def missing() -> str | None:
    """Return why nothing can be done here, or None."""
    if os.getuid() != 0:
        return "chroot needs root"
    return None if shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") else "no debootstrap"


@contextmanager
def mounted(root: Path) -> Iterator[None]:
    """Mount what programs expect: /proc, and shared memory for the data loaders' processes."""
    with ExitStack() as stack:
        for kind, place in (("proc", "proc"), ("tmpfs", "dev/shm")):
            target = root / place
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "-t", kind, kind, str(target)], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", str(target)], check=False)
        yield


def copy_host_files(root: Path) -> None:
    """Copy what reaches the package indexes of this machine; nothing of it is part of octdino."""
    places = [(Path(name), inside(root, target)) for name, target in HOST_FILES.items()]
    places += [(Path.home() / name, inside(root, HOME) / name) for name in USER_FILES]
    for source, target in places:
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        elif source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # may be a link
            shutil.copyfile(source, target)


def inside(root: Path, path: str) -> Path:
    """Return where an absolute path of the chroot is."""
    return root / path.lstrip("/")


def copy_sources(target: Path) -> None:
    """Copy the files that git tracks, links as links, over those of an earlier call."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)
        shutil.copy2(ROOT / name, copy, follow_symlinks=False)


def chroot(root: Path, script: str) -> int:
    """Run a script of bash in the root, with a clean environment; return its exit code."""
    env = {key: value for key, value in os.environ.items() if PASSED_ON.fullmatch(key)}
    env |= {"HOME": HOME, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    env |= {"LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    if inside(root, CERTIFICATES).is_file():
        env |= dict.fromkeys(("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), CERTIFICATES)
    command = ["chroot", str(root), "/bin/bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
