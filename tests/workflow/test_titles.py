"""Two cohorts of one kind keep apart: the title is the {cohort} of every path, the kind says how files are read."""

import re
from pathlib import Path

import yaml

from octdino.config import CohortSettings
from octdino.data.cohort_origin import origin_text
from tests.workflow.conftest import FEW, Workflow


def test_a_second_phantom_stands_beside_the_first(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    flow.configure(FEW)
    assert flow.run("--cores", "2").returncode == 0
    first = {path: path.read_bytes() for path in tmp_path.glob("results/phantom/*/*") if path.is_file()}
    before = len(flow.calls())
    flow.configure({**FEW, "cohort": {"title": "phantom-2.x", "phantom": {"seed": 1}}})
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stderr
    calls = flow.calls()[before:]
    assert len(calls) == before
    assert not [call for call in calls if "/phantom/" in call]
    (made,) = (call for call in calls if call.startswith("phantom "))
    assert "--out results/phantom-2.x/cohort/files" in made
    (read,) = (call for call in calls if call.startswith("cohort "))
    assert read.startswith("cohort phantom ")
    assert "results/phantom-2.x/cohort/files" in read
    assert '"title": "phantom-2.x"' in read
    assert sum(call.startswith("clinical") for call in calls) == 1  # the kind has clinical values, not the title
    assert {path: path.read_bytes() for path in first} == first
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"phantom", "phantom-2.x"}


def test_two_folders_have_two_places(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    commands = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**FEW, "cohort": {"name": "folder", "root": name, "title": f"clinic-{name}"}}))
        commands.append(["-n", "--workflow-profile", "none", "--configfile", str(path)])
    for name, (code, output) in zip(("a", "b"), flow.many(commands), strict=True):
        assert code == 0, output
        assert set(re.findall(r"results/([^/]+)/", output)) == {f"clinic-{name}"}
        assert "phantom" not in output


def test_a_second_cohort_of_the_same_title_is_refused_unless_it_is_forced(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    commands = []
    for size, name in enumerate(("a", "b"), 1):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"x" * size)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**FEW, "cohort": {"name": "folder", "root": name}}))
        commands.append(["-n", "--configfile", str(tmp_path / f"{name}.yaml")])
    made = tmp_path / "results/folder/cohort"
    made.mkdir(parents=True)
    settings = CohortSettings.model_validate({"name": "folder", "root": tmp_path / "a"})
    (made / "origin.json").write_text(origin_text(settings, ["0.png"]))
    same, other, forced = flow.many([*commands, [*commands[1], "--forcerun", "cohort"]])
    assert (same[0], other[0], forced[0]) == (0, 2, 0), (same, other, forced)
    (line,) = [line for line in other[1].splitlines() if line.startswith("octdino: error: ")]
    assert f"results/folder: was made from the folder {tmp_path}/a, not from {tmp_path}/b, " in line
    assert "needs another cohort.title; to replace this one, run with --forcerun cohort" in line
