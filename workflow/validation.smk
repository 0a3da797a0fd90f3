# Validation of the configuration before any job. Nothing heavy is imported: every nested Snakemake reads this file.
import sys
from pathlib import Path

from octdino.config import load_config
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
        check_files(settings)
    except UserError as error:
        print(f"octdino: error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER)
    return settings


def check_files(settings):
    """Raise UserError for a configured path that does not exist, before the first job rather than after an hour."""
    cohort = settings.cohort
    files = {
        "cohort.table": cohort.table,
        "cohort.clinical": cohort.clinical,
        "cohort.split.file": cohort.split.file,
    } | {
        f"models.{name}.weights": model.weights
        for name, model in settings.models.items()
    }
    # Cohorts that are downloaded may be missing; the phantom is generated.
    if cohort.local and not cohort.root.is_dir():
        raise UserError(f"cohort.root: no such folder: {cohort.root.absolute()}")
    for key, path in files.items():
        if path and not path.is_file():
            raise UserError(f"{key}: no such file: {path.absolute()}")


settings = read_settings()
