"""Reference of the settings, from the settings classes of octdino/config: type, unit, default and meaning per key."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from docs.extension.commands_page import escaped
from docs.extension.setting_types import type_words, unit
from octdino.config import METHODS, Config, ExternalSettings, MethodSettings, ModelSettings, Settings
from octdino.config.augment import SMALL_VIEWS
from octdino.config.defaults import INHERITED


def markdown() -> str:
    """Return one entry per key of the configuration, in MyST, a heading per section."""
    lines: list[str] = []
    for name, field in Config.model_fields.items():
        if isinstance(field.default, Settings):
            lines += _section(name, field.default, 2)
        else:
            lines += [f"## `{name}`", "", *_entry(name, field, field.default)]
        if name == "models":
            lines += _named("models.NAME", ModelSettings, {})
        if name == "pretrain":
            lines += _methods()
        if name == "evaluate":
            lines += _named("evaluate.external.N", ExternalSettings, {})
    return "\n".join(lines)


def _section(key: str, section: Settings, level: int) -> Iterator[str]:
    """Yield a heading, what the section is for, its keys, and then its inner sections."""
    yield from (f"{'#' * level} `{key}`", "", _summary(type(section)), "")
    if key in INHERITED:
        yield from (f"{INHERITED[key][0].upper()}{INHERITED[key][1:]}.", "")
    inner = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Settings):
            inner.append((f"{key}.{name}", value))
        elif key not in INHERITED or name in section.model_fields_set - SMALL_VIEWS:
            yield from _entry(f"{key}.{name}", field, value)
    for name, value in inner:
        if key not in INHERITED:
            yield from _section(name, value, level + 1)


def _methods() -> Iterator[str]:
    """Yield the settings of every method, then what each has of its own."""
    yield from ("### `pretrain.variants.NAME`", "", _summary(MethodSettings), "")
    yield "`NAME` is a method, or a name of your own with a key `method` that says which."
    yield from ("", *_named("pretrain.variants.NAME", MethodSettings, {}))
    common = {name: field.default for name, field in MethodSettings.model_fields.items()}
    for name, cls in METHODS.items():
        yield from (f"### `pretrain.variants.{name}`", "", _summary(cls), "")
        yield from _named(f"pretrain.variants.{name}", cls, common)


def _named(key: str, cls: type[Settings], known: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of an entry of a mapping whose names the user chooses, but those known with the same default."""
    for name, field in cls.model_fields.items():
        own = name != "method" and (name not in known or known[name] != field.default)
        if own:
            yield from _entry(f"{key}.{name}", field, field.default)


def _entry(key: str, field: Any, default: Any) -> Iterator[str]:
    """Yield one key as a directive, so that it has a permanent link and is found by the search."""
    shown = "none, must be given" if field.is_required() else f"`{flow(default)}`"
    facts = [f"Type: {type_words(field)}", f"Default: {shown}"]
    if found := unit(key, field):
        facts.insert(1, f"Unit: {found}")
    meaning = _sentence(field.description or "")
    yield from (f"```{{setting}} {key}", "", meaning, "", ". ".join(facts) + ".", "```", "")


def flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000, allow_unicode=True)
    return str(text).removesuffix("...\n").strip()


def _summary(cls: type[Settings]) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def _sentence(text: str) -> str:
    """Return a description as a sentence; one that begins with a value and a colon keeps its first letter."""
    if re.match(r"px\b|[\w, ]+:", text):
        return f"{escaped(text)}."
    return f"{escaped(text[:1].upper() + text[1:])}." if text else ""
