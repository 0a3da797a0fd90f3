"""Checklist: where the page answers the items of TRIPOD+AI (Collins et al. 2024) and CLAIM (2024 update)."""

from typing import NamedTuple

from octdino.data.sampling_units import PATIENT, Unit
from octdino.report.data_card import Part

AUTHORS = "for the authors"
NOT_RUN = "not run here"
PATIENTS_UNKNOWN = "patients are unknown"


class Item(NamedTuple):
    """A question, its numbers in the two checklists, the section of the page, and what the authors have to add.

    `unknown` is a note on the answer where patients are unknown, `absent` what is said without the section.
    """

    question: str
    tripod: str
    claim: str
    anchor: str = ""
    rest: str = ""
    unknown: str = ""
    absent: str = ""


class Answered(NamedTuple):
    """A row of the table; `anchor` is a section of the page, or empty."""

    question: str
    tripod: str
    claim: str
    anchor: str
    where: str


ITEMS = (
    Item("Title and abstract", "1, 2", "1, 2", "", AUTHORS),
    Item("Clinical background, intended use, known inequalities", "3a, 3b, 3c", "3", "model-card", "background"),
    Item("Objectives", "4", "4, 6", "answer", "hypotheses"),
    Item("Prospective or retrospective, setting, dates, treatments", "5b, 6a, 6c", "5", "", AUTHORS),
    Item("Sources of data", "5a", "7", "data-card", "why these, and which population they represent"),
    Item(
        "Who and what was included and excluded", "6b", "8, 10", "run", "how patients were recruited", PATIENTS_UNKNOWN
    ),
    Item("Preparation of the images", "7", "9", "run"),
    Item("De-identification", "", "11", "", AUTHORS),
    Item("Missing data", "11", "12", "limits"),
    Item("How the images were taken", "9b", "13", "", AUTHORS),
    Item("Reference standard: what, why, by whom, blinded or not", "8a, 8b, 8c, 9c", "14, 15, 16, 17, 18", "", AUTHORS),
    Item("Inputs and why they were chosen", "9a", "", "model-card", "why these"),
    Item("Sample size and its reason", "10", "21", "comparison", "a calculation beforehand"),
    Item(
        "Division of the data, and at which level it is disjoint",
        "12a",
        "19, 20",
        "run",
        unknown="disjoint by image only, as patients are unknown",
    ),
    Item(
        "Does anything leak from the test set",
        "12a",
        "20",
        "audit",
        unknown="patients are not checkable, as they are unknown",
    ),
    Item("Model, its inputs and outputs", "12b, 12c, 15, 22", "22", "model-card"),
    Item("Software", "18f", "23", "run", "where the code is"),
    Item("Start of the weights", "12c", "24", "model-card"),
    Item("Training, and choice of the final model", "12c", "25, 26", "run"),
    Item("Ensembles", "", "27", "", "none was made"),
    Item("Rare labels", "13", "", "labels"),
    Item("Measures of performance", "12e", "28", "comparison"),
    Item("Uncertainty and tests", "12e", "29", "answer", unknown="intervals are over images, as patients are unknown"),
    Item("Robustness, and differences between groups", "12d, 14, 23b", "30", "subgroups", "other devices and clinics"),
    Item("Explanations", "", "31", "explain"),
    Item("Evaluation on internal data", "16", "32", "comparison"),
    Item(
        "Evaluation on external data",
        "12g, 16",
        "33",
        "external",
        "how its patients were chosen",
        absent=f"none; {AUTHORS}",
    ),
    Item("Patients and events, flow", "20a, 21", "35", "run", unknown=PATIENTS_UNKNOWN),
    Item(
        "Characteristics of patients in each part",
        "20b, 20c",
        "36",
        "data-card",
        "age, sex, ethnicity",
        PATIENTS_UNKNOWN,
    ),
    Item("Performance with intervals", "23a", "37, 38", "comparison"),
    Item("Each label by itself", "23a", "37, 38", "labels"),
    Item("Calibration, recalibration", "12f, 24", "37", "calibration"),
    Item("Analysis of failures", "", "39", "errors"),
    Item("Interpretation", "25", "41", "answer", "beside other studies"),
    Item("Limitations", "26", "40", "limits"),
    Item("Poor or missing input in practice, users, next steps", "27a, 27b, 27c", "41", "", AUTHORS),
    Item("Ethics, patients' part in the study", "17, 19", "", "", AUTHORS),
    Item("Registration, protocol, funding, interests", "18a, 18b, 18c, 18d", "34, 42, 44", "", AUTHORS),
    Item("Access to data, code and weights", "18e, 18f", "43", "model-card", "where they are offered"),
)


def checklist(parts: dict[str, str], unit: Unit = PATIENT) -> list[Answered]:
    """Return each item with the section of this page that answers it.

    Args:
        parts: heading by anchor, of the sections of this page.
        unit: of the cohort; where patients are unknown, the items about patients have a note.
    """
    found = []
    for item in ITEMS:
        there = item.anchor in parts
        if not item.anchor:
            where = item.rest
        elif not there:
            where = item.absent or NOT_RUN
        else:
            told = [item.unknown] if item.unknown and unit.state == "unknown" else []
            told += [f"{AUTHORS}: {item.rest}"] if item.rest else []
            where = "; ".join([parts[item.anchor], *told])
        found.append(Answered(item.question, item.tripod, item.claim, item.anchor if there else "", where))
    return found


def table(rows: list[Answered]) -> Part:
    """Return the checklist as a part for the Markdown file."""
    return Part(
        "Where report.html answers each item",
        ["A pipeline run documents its methods and results. Everything else is for the authors to answer."],
        ["question", "TRIPOD+AI", "CLAIM 2024", "where"],
        [[row.question, row.tripod, row.claim, row.where] for row in rows],
    )
