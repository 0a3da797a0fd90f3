"""Low-rank adapters (LoRA) of a backbone's linear layers, by the library peft, and their merge into the weights.

Source: Hu et al. 2022, https://arxiv.org/abs/2106.09685. All linear layers are adapted, which scores above attention
alone (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314); scale 2, as there is usual.
"""

import importlib.util
from contextlib import ExitStack

import torch
from torch import nn

from octdino.errors import UserError
from octdino.training.random_seeds import seed_of

SCALE = 2  # alpha over rank


def check_adapters_installed() -> None:
    """Check that the library is there; its import takes seconds, so only its name is looked up.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("peft") is None:
        raise UserError("classify.lora: package peft is missing; pip install 'octdino[lora]'")


def add_adapters(backbone: nn.Module, rank: int, channels: int, size: int, seed: int) -> None:
    """Freeze a backbone and add trainable adapters, which begin without an effect, to its linear layers.

    Args:
        rank: of the adapters.
        channels, size: of its input; the layers that a forward pass calls are adapted, not those whose weight another
            layer reads (timm's attention with separate biases of queries and values).
        seed: of their first weights.

    Raises:
        UserError: peft is missing, or the backbone has no linear layer.
    """
    check_adapters_installed()
    from peft import LoraConfig, inject_adapter_in_model

    names = called_linear_layers(backbone, channels, size)
    if not names:
        raise UserError("classify.lora: the backbone has no linear layer; expected a transformer")
    torch.manual_seed(seed_of(seed, "adapters"))
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=names, lora_dropout=0.0, bias="none"), backbone
    )
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)


@torch.no_grad()
def called_linear_layers(backbone: nn.Module, channels: int, size: int) -> list[str]:
    """Return the names of the linear layers that one forward pass calls, in the network's order."""
    called: set[str] = set()
    device, training = next(backbone.parameters()).device, backbone.training
    linear = [(name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    with ExitStack() as hooks:
        for name, module in linear:
            hooks.enter_context(module.register_forward_hook(lambda *_, name=name: called.add(name)))
        backbone.eval()(torch.zeros(1, channels, size, size, device=device))
    backbone.train(training)
    return [name for name, _ in linear if name in called]


@torch.no_grad()
def merge_adapters(network: nn.Module) -> None:
    """Add the adapters to the weights of their layers and remove them: the network has its own layers again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, module.get_base_layer())
    network.requires_grad_(True)
