"""Reference of the file formats, from the schemas that check every read: columns of tables, keys of metadata."""

import re
from collections.abc import Iterator

from docs.extension.commands_page import escaped
from docs.extension.markdown_text import table
from docs.extension.setting_types import type_words
from octdino.data.schemas import csv_schemas, evaluate_schemas, external_metadata, metadata, model_folder
from octdino.data.schemas.column import Column, Schema

TABLES = {  # constant in csv_schemas or evaluate_schemas: the table in results/{cohort}/
    "MANIFEST": "cohort/manifest.csv",
    "QUARANTINE": "cohort/quarantine.csv",
    "SPLITS": "cohort/splits.csv",
    "HISTORY": "pretrain/…/history.csv",
    "PREDICTIONS": "classify/…/predictions.csv",
    "METRICS": "evaluate/metrics.csv",
    "COMPARISON": "evaluate/comparison.csv",
    "SUBGROUPS": "evaluate/subgroups.csv",
    "LABEL_EFFICIENCY": "evaluate/label_efficiency.csv",
    "POWER": "evaluate/power.csv",
    "SIDE_BY_SIDE": "the CSV beside the page of octdino compare",
    "EXTERNAL_SCORES": "external/{name}/scores/…/scores.csv",
    "EXTERNAL": "evaluate/external.csv",
    "FINDINGS": "audit/findings.csv",
    "EMBEDDING": "explain/…/embedding.csv",
    "OVERLAP": "explain/…/overlap.csv",
    "JACCARD": "explain/…/jaccard.csv",
    "JACCARD_IMAGES": "explain/…/jaccard_images.csv",
    "RETRIEVAL": "explain/…/retrieval.csv",
}
MORE = {  # columns that no schema names one by one
    "PREDICTIONS": "Then one column per label (its ground truth: 0, 1 or empty) and one per label that begins with "
    "`prob:` (its predicted probability before calibration, 0 to 1).",
    "EXTERNAL_SCORES": "Then one column per internal label that begins with `prob:`, as in predictions.csv.",
    "HISTORY": "Then one column per measure, with the mean over the epoch's steps or the value at its end; which ones "
    "there are depends on the method.",
    "MANIFEST": "Then one column per label: 0, 1 or empty for unknown.",
}
METADATA: dict[str, type[metadata.Metadata]] = {
    "pretrain/…/backbone.json": metadata.BackboneMetadata,
    "classify/…/classifier.json": metadata.ClassifierMetadata,
    "audit/audit.json": metadata.AuditMetadata,
    "explain/…/explain.json": metadata.ExplainMetadata,
    "external/{name}/scores/…/scores.json": external_metadata.ExternalScoresMetadata,
    "evaluate/external.json": external_metadata.ExternalMetadata,
    "cohort/scans.h5, attributes": metadata.StoreAttributes,
    "model/model.json": model_folder.ModelMetadata,
}


def markdown() -> str:
    """Return the columns of every table and the keys of every metadata file, in MyST."""
    lines = ["## Tables", ""]
    for constant, schema in schemas().items():
        lines += _table(constant, schema)
    lines += ["## Reasons in quarantine.csv", ""]
    lines += [table(("reason", "meaning"), [(f"`{key}`", escaped(text)) for key, text in csv_schemas.REASONS.items()])]
    lines += ["## Metadata", "", "A file may have more keys than these: they are for people, and no stage reads them."]
    for name, cls in METADATA.items():
        lines += ["", f"### {name}", "", *_metadata(cls)]
    return "\n".join(lines)


def schemas() -> dict[str, Schema]:
    """Return each schema of a table by the name of its constant, in the order of TABLES.

    Raises:
        KeyError: a schema has no file in TABLES.
    """
    constants = vars(csv_schemas) | vars(evaluate_schemas)
    found = {name: value for name, value in constants.items() if isinstance(value, Schema)}
    if missing := found.keys() - TABLES.keys():
        raise KeyError(f"docs/extension/files_page.py, TABLES: add the file of {', '.join(sorted(missing))}")
    return {name: found[name] for name in TABLES}


def _table(constant: str, schema: Schema) -> Iterator[str]:
    yield from (f"### {TABLES[constant]}", "")
    rows = [_row(column) for column in schema]
    yield table(("column", "content", "meaning"), rows)
    if constant in MORE:
        yield from (MORE[constant], "")
    if schema.key:
        yield from ("One row per " + ", ".join(f"`{name}`" for name in schema.key) + ".", "")


def _row(column: Column) -> tuple[str, ...]:
    expected = column.expected + (", unique" if column.unique else "")
    return f"`{column.name}`", escaped(expected), escaped(column.meaning)


def _metadata(cls: type[metadata.Metadata]) -> Iterator[str]:
    meanings = attributes(cls.__doc__ or "")
    rows: list[tuple[str, ...]] = []
    for name, field in cls.model_fields.items():
        words = type_words(field)
        rows.append((f"`{field.alias or name}`", words, escaped(meanings.get(name, ""))))
    yield table(("key", "content", "meaning"), rows)


def attributes(docstring: str) -> dict[str, str]:
    """Return the meanings below `Attributes:` of a docstring; `a, b: text` gives both names the text."""
    found: dict[str, str] = {}
    _, _, part = docstring.partition("Attributes:\n")
    for name, text in re.findall(r"^ {8}([\w, ]+): (.*(?:\n {12}.*)*)", part, re.MULTILINE):
        for each in name.split(", "):
            found[each] = " ".join(text.split())
    return found
