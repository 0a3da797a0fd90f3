"""Settings of a job as a file named by its content; imported by the Snakefile only."""

import hashlib
from pathlib import Path
from typing import Any

from octdino.data.atomic_files import replacing

FOLDER = Path(".snakemake", "octdino-settings")  # in the working directory, on a cluster on a shared disk
HEX = 24  # digits of the hash, 96 bits


def settings_file(workflow: Any, name: str, text: str) -> str:
    """Return the path of the file with the settings `text`; write it if `workflow` is running jobs by now.

    `name` says what the settings are of; the rest of the file's name is a hash of its content. So equal settings are
    one file, a file is never changed, and a process that is killed while it writes leaves no file of that name. A dry
    run, a graph and a rerun check only need the name and write nothing. Snakemake computes `params` again for each job
    that it is about to start, in the process that runs the workflow and on a cluster in the job's own Snakemake too:
    the file exists when the command reads it even if `.snakemake` was deleted meanwhile.

    Raises:
        UserError: the file cannot be written.
    """
    path = FOLDER / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:HEX]}.json"
    if workflow.scheduler is not None and not workflow.dryrun and not path.is_file():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return str(path)
