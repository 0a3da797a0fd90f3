"""Backbones by timm name, and heads."""

from octdino.data.schemas.metadata import BackboneSpec
from octdino.models.backbones import create_backbone, load_backbone, save_backbone
from octdino.models.heads import PrototypeHead, projection_head

__all__ = ["BackboneSpec", "PrototypeHead", "create_backbone", "load_backbone", "projection_head", "save_backbone"]
