"""The one build step that pyproject.toml cannot declare: the workflow travels inside of the wheel.

The files stand at the top of the repository, where Snakemake expects them, and are copied to octdino/_workflow of the
wheel. An editable install and the checkout use them where they are (octdino/workflow_files.py finds either).
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

WORKFLOW = ("Snakefile", "config.yaml", "config", "envs", "profiles", "workflow")


class BuildWithWorkflow(build_py):
    """Copies the package, then the workflow."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "octdino", "_workflow")
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build, with files that are gone by now
        target.mkdir(parents=True)
        for name in WORKFLOW:
            if Path(name).is_dir():
                # Links become files: a wheel has none.
                shutil.copytree(name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                shutil.copy(name, target / name)


setup(cmdclass={"build_py": BuildWithWorkflow})
