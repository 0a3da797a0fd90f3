"""Profiles of clusters and the rules that they place."""

import re

import pytest
import yaml

from tests.workflow.conftest import ROOT

RULE = re.compile(r"^rule (\w+):\n((?:    .*\n|\n)+)", re.MULTILINE)


def rules_with_a_gpu() -> set[str]:
    """Rules whose resource `gpu` is not 0, by the text of the rule files."""
    texts = [path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk"))]
    rules = {name: body for text in texts for name, body in RULE.findall(text)}
    assert len(rules) > 10
    return {name for name, body in rules.items() if (gpu := re.search(r"^ +gpu=(.*)", body, re.M)) and gpu[1] != "0,"}


@pytest.mark.parametrize("profile", ["slurm", "lsf", "generic"])
def test_every_rule_that_computes_on_a_gpu_gets_one(profile: str) -> None:
    settings = yaml.safe_load((ROOT / f"profiles/{profile}/config.yaml").read_text())
    gpu = {rule for rule, resources in settings["set-resources"].items() if "gpu" in resources}
    assert {"pretrain", "score"} <= rules_with_a_gpu() <= gpu
