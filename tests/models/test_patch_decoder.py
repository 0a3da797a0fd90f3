"""The decoder of masked autoencoders equals lightly's, which puts the tokens back into the order of the patches."""

import pytest
import torch
from lightly.models import utils as lightly
from lightly.models.modules import MaskedVisionTransformerDecoderTIMM

from octdino.models.patch_decoder import PatchDecoder


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_predictions_equal_lightlys(prefix):
    torch.manual_seed(0)
    ours = PatchDecoder(48, 64, 2, prefix, 12)
    theirs = MaskedVisionTransformerDecoderTIMM(
        16, 64, 2, 2, num_prefix_tokens=prefix, mask_token=ours.mask_token, initialize_weights=False
    )
    lightly.initialize_2d_sine_cosine_positional_embedding(theirs.pos_embed, num_prefix_tokens=prefix)
    theirs.blocks.load_state_dict(ours.blocks.state_dict())
    theirs.norm.load_state_dict(ours.norm.state_dict())
    order = torch.rand(3, 16).argsort(1)
    tokens = torch.randn(3, prefix + 4, 48)
    first = torch.arange(prefix).expand(3, -1)
    kept, masked = torch.cat([first, order[:, :4] + prefix], 1), order[:, 4:] + prefix
    hidden = lightly.repeat_token(ours.mask_token, (3, prefix + 16))
    decoded = theirs(lightly.set_at_index(hidden, kept, ours.embed(tokens)))
    expected = ours.predict(lightly.get_at_index(decoded, masked))
    torch.testing.assert_close(ours(tokens, order, (4, 4)), expected, rtol=1e-4, atol=1e-5)


def test_prediction_depends_on_the_position_of_the_masked_patch():
    torch.manual_seed(0)
    decoder = PatchDecoder(48, 32, 1, 1, 12)
    order = torch.arange(15)[None]
    predicted = decoder(torch.randn(1, 5, 48), order, (3, 5))
    assert predicted.shape == (1, 11, 12)
    assert len(predicted[0].detach().round(decimals=4).unique(dim=0)) == 11


def test_all_its_parameters_are_trained():
    decoder = PatchDecoder(48, 32, 2, 1, 12)
    decoder(torch.randn(2, 5, 48), torch.arange(16).expand(2, -1), (4, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in decoder.parameters())
