"""Pretraining methods, one module per method; `octdino.config.methods.METHODS` is the registry."""

import importlib

from octdino.config import MethodSettings
from octdino.pretrain.methods.method import Method


def method_class(settings: MethodSettings) -> type[Method]:
    """Return the class of a method: class `Name` of the module `name`."""
    module = importlib.import_module(f"{__name__}.{settings.method}")
    method: type[Method] = getattr(module, settings.method.capitalize())
    return method
