"""Checks of timm model names and arguments in a configuration or in metadata: only those that shape a network.

timm's `create_model` also takes arguments that download or open files (`checkpoint_path`, `pretrained_cfg`), and names
that are addresses (`hf-hub:`, `local-dir:`). Configurations and metadata can be from others, so both are refused here.
"""

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from octdino.errors import short

NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")  # architecture, or architecture.tag
NAME_RULE = "expected the name of a timm model: letters, digits and _, and one dot before a tag"
# Every parameter of timm.create_model and timm.models.build_model_with_cfg but those that shape a network. A test
# compares this list with both signatures.
LOADING = frozenset(
    {
        "cache_dir", "checkpoint_path", "exportable", "feature_cfg", "feature_cls", "features_only", "kwargs_filter",
        "model_cfg", "model_cls", "model_name", "no_jit", "out_indices", "pretrained", "pretrained_cfg",
        "pretrained_cfg_overlay", "pretrained_filter_fn", "pretrained_model_args", "pretrained_strict", "pruned",
        "scriptable", "variant",
    }
)  # fmt: skip
OURS = {"in_chans": "set by cohort.image.channels", "num_classes": "backbones have no classifier"}


def is_timm_name(name: str) -> bool:
    """Whether a text can be the name of a timm model, and is no address or path."""
    return NAME.fullmatch(name) is not None


def _check_name(name: str) -> str:
    if not is_timm_name(name):
        raise PydanticCustomError("timm_name", NAME_RULE)
    return name


def _check_args(args: dict[str, Any]) -> dict[str, Any]:
    for name, value in args.items():
        if name in LOADING or name.startswith("pretrained"):
            raise ValueError(f"{name}: refused: it does not shape a network; weights come from models.NAME.weights")
        if name in OURS:
            raise ValueError(f"{name}: refused: {OURS[name]}")
        if not _is_plain(value):
            raise ValueError(f"{name}: {short(value)}; expected a number, text, true, false, null, or a list of these")
    return args


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


TimmName = Annotated[str, AfterValidator(_check_name)]
TimmArgs = Annotated[dict[str, Any], AfterValidator(_check_args)]
