"""Backbones by timm name, read-outs, heads, initial weights, saliency maps."""
