"""The methods, found by name: `octdino.config.methods.METHODS` is the registry, one module here is the method."""

import importlib

from octdino.config import MethodSettings
from octdino.pretrain.methods.method import Method


def method_class(settings: MethodSettings) -> type[Method]:
    """The class `Name` of the module `name` for the method called `name`."""
    module = importlib.import_module(f"{__name__}.{settings.method}")
    found: type[Method] = getattr(module, settings.method.capitalize())
    return found
