"""The verbs of `octdino`: how each one's arguments are read, and what it runs. Only this room uses all stages."""

from octdino.cli.cohort_commands import COHORT_VERBS, SCHEMA_VERBS
from octdino.cli.commands import TRAINING_VERBS
from octdino.cli.compare_commands import COMPARE_VERBS
from octdino.cli.external_commands import EXTERNAL_VERBS
from octdino.cli.flags import Verbs
from octdino.cli.inference_commands import INFERENCE_VERBS
from octdino.cli.inspect_commands import INSPECT_VERBS
from octdino.cli.plan_commands import PLAN_VERBS
from octdino.cli.run_commands import RUN_VERBS
from octdino.cli.watch_commands import WATCH_VERBS

VERBS: Verbs = {
    **INSPECT_VERBS,
    **PLAN_VERBS,
    **RUN_VERBS,
    **WATCH_VERBS,
    **COHORT_VERBS,
    **TRAINING_VERBS,
    **COMPARE_VERBS,
    **EXTERNAL_VERBS,
    **INFERENCE_VERBS,
    **SCHEMA_VERBS,
}
