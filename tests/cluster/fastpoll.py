"""`snakemake`, but SLURM is asked every second: the plugin's wait, which grows by ten seconds, is fixed in its code."""

import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, value: None)

sys.exit(main())
