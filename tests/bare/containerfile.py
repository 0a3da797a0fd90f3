"""The steps of the Containerfile as scripts of bash, for a machine without podman and docker."""

import re
import shlex
from pathlib import Path


def instructions(path: Path) -> tuple[str, list[str]]:
    """Return the Debian suite of FROM, and one script per RUN, each in its WORKDIR and with its ENV.

    COPY has to be `COPY . FOLDER`, which the caller does. The last script makes a dry run and the phantom, as a user of
    the image would, in the last WORKDIR.
    """
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    suite, folder, env, scripts = "", "/", "", []
    for line in filter(None, text.splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            suite = re.fullmatch(r"debian:(\w+)-slim", rest)[1]
        elif word == "WORKDIR":
            folder = shlex.quote(rest)
        elif word == "ENV":
            name, value = rest.split("=", 1)
            env += f'export {name}="{value}"\n'
        elif word == "RUN":
            scripts.append(f"mkdir -p {folder}; cd {folder}\n{env}{rest}")
        else:
            assert (word, rest) == ("COPY", ". /opt/octdino"), line
    few = "--config 'cohort={phantom: {patients: 8}}'"
    dry = f"snakemake --snakefile /opt/octdino/Snakefile -n {few} | tail -3"
    use = f"octdino run --cores 2 --until phantom {few}"
    scripts.append(f"mkdir -p {folder}; cd {folder}\n{env}{dry}\n{use}")
    return suite, scripts
