# Validation of the configuration before any job. Nothing heavy is imported: every nested Snakemake reads this file.
import sys
from pathlib import Path

from octdino.config import (
    check_before_run,
    check_origin,
    load_config,
    notes_before_run,
)
from octdino.errors import EXIT_USER, UserError


def read_settings():
    """Return the validated settings; a mistake in them ends Snakemake with one line before any job starts."""
    here = Path.cwd()
    paths = [Path(name) for name in workflow.configfiles]
    names = [
        str(path.relative_to(here) if path.is_relative_to(here) else path)
        for path in paths
    ]
    try:
        settings = load_config(config, " + ".join(dict.fromkeys(names)) or "config")
        if workflow.is_main_process:  # not again inside of a cluster's jobs
            check_before_run(settings)
            for note in notes_before_run(settings, cluster=on_cluster()):
                print(f"octdino: note: {note}", file=sys.stderr)
    except UserError as error:
        print(f"octdino: error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER)
    return settings


def check_same_cohort():
    """Raise UserError if another cohort's results would be replaced and the command line does not ask for it."""
    asked = workflow.dag_settings
    if not (asked.forceall or "cohort" in asked.forcerun):
        check_origin(Path("results", settings.cohort.results_name), settings.cohort)


settings = read_settings()
