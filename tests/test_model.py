import math

import numpy as np
import pytest
import torch
from torch import nn

from bertrec_utils.masking import question_batch
from bertrec_utils.model import BERT4Rec, Block, Dropout, ModelConfig, visible_positions
from conftest import rows


def test_block_equals_pytorchs_encoder_layer():
    torch.manual_seed(0)
    block = Block(ModelConfig(item_count=5, width=24, heads=3, dropout=0.0)).eval()
    reference = nn.TransformerEncoderLayer(
        24, 3, dim_feedforward=96, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    copies = {
        "self_attn.in_proj_weight": torch.cat([block.attention.query.weight, block.attention.key_value.weight]),
        "self_attn.in_proj_bias": torch.cat([block.attention.query.bias, block.attention.key_value.bias]),
        "self_attn.out_proj": block.attention.project,
        "linear1": block.expand,
        "linear2": block.contract,
        "norm1": block.attention_norm,
        "norm2": block.feed_forward_norm,
    }
    state = {}
    for name, source in copies.items():
        if isinstance(source, nn.Module):
            state |= {f"{name}.weight": source.weight, f"{name}.bias": source.bias}
        else:
            state[name] = source
    reference.load_state_dict(state)

    tokens = torch.tensor([[0, 0, 1, 2, 3], [4, 5, 1, 2, 3]])
    states = torch.randn(2, 5, 24)
    visible = visible_positions(tokens)
    expected = reference(states, src_key_padding_mask=tokens == 0)
    found = block(states, visible)
    is_item = tokens != 0
    torch.testing.assert_close(found[is_item], expected[is_item], rtol=1e-4, atol=1e-5)

    asked = torch.tensor([[4, 2], [0, 3]])  # the short cut: only the positions that are read
    torch.testing.assert_close(block(states, visible, asked), found.gather(1, asked[..., None].expand(-1, -1, 24)))


def test_padding_does_not_change_a_prediction(small_model):
    alone = small_model.score(rows([3, 7, 1]))
    beside_longer = small_model.score(rows([3, 7, 1], [5, 6, 7, 8, 9, 10, 11]))[:1]
    np.testing.assert_allclose(alone, beside_longer, rtol=1e-4, atol=1e-4)


def test_other_users_in_the_batch_do_not_matter(small_model):
    first = small_model.score(rows([3, 7, 1], [5, 6]))[0]
    second = small_model.score(rows([3, 7, 1], [9, 8]))[0]
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def test_order_matters_and_both_sides_are_seen(small_model):
    assert np.abs(small_model.score(rows([3, 7, 1])) - small_model.score(rows([7, 3, 1]))).max() > 1e-3
    asked = torch.tensor([[1]])
    left = small_model(torch.tensor([[3, small_model.mask_token, 5]]), asked)
    right = small_model(torch.tensor([[3, small_model.mask_token, 6]]), asked)
    assert (left - right).abs().max() > 1e-3  # what comes AFTER the mask changes its state


def test_row_of_nothing_but_padding_is_not_nan(small_model):
    tokens = torch.tensor([[0, 0, 0], [1, 2, 3]])
    states = small_model(tokens, torch.tensor([[2], [2]]))
    assert torch.isfinite(small_model.logits(states)).all()
    small_model.train()
    small_model.loss(tokens, torch.tensor([[2], [2]]), torch.tensor([[0], [3]])).backward()
    assert all(torch.isfinite(p.grad).all() for p in small_model.parameters() if p.grad is not None)


def test_scores_have_a_column_an_item_and_none_for_pad_or_mask(small_model):
    assert small_model.score(rows([1], [2, 3])).shape == (2, 30)


def test_loss_by_hand(small_model):
    tokens = question_batch(rows([1, 2, 3], [4]), small_model.mask_token, 12)
    masked = torch.tensor([[3, 0], [3, 2]])
    labels = torch.tensor([[9, 0], [8, 4]])  # the second place of the first row is unused
    logits = small_model.logits(small_model(tokens, masked)).log_softmax(-1)
    expected = -(logits[0, 0, 8] + logits[1, 0, 7] + logits[1, 1, 3]) / 3
    torch.testing.assert_close(small_model.loss(tokens, masked, labels), expected)


def test_untrained_loss_is_that_of_guessing():
    torch.manual_seed(0)
    model = BERT4Rec(ModelConfig(item_count=3416))
    tokens = torch.randint(1, 3417, (8, 50))
    masked = torch.arange(8)[:, None].expand(8, 8)
    loss = model.loss(tokens, masked, torch.randint(1, 3417, (8, 8))).item()
    assert abs(loss - math.log(3416)) < 0.3  # with N(0, 1) weights it would be above 20


def test_output_weights_are_the_item_embeddings(small_model):
    states = torch.randn(4, 16)
    expected = states @ small_model.item_embedding.weight[1:31].T + small_model.item_bias
    torch.testing.assert_close(small_model.logits(states), expected)


@torch.no_grad()
def test_attention_maps_are_what_the_model_uses(small_model):
    tokens = question_batch(rows([1, 2, 3], [4]), small_model.mask_token, 12)
    first = small_model.attention_maps(tokens)[0]
    assert first.shape == (2, 2, 4, 4)
    torch.testing.assert_close(first.sum(-1), torch.ones(2, 2, 4))
    assert (first[1, :, :, :2] == 0).all()  # nobody looks at padding
    attention = small_model.blocks[0].attention
    context = small_model.blocks[0].attention_norm(small_model.embed(tokens))
    value = attention.key_value(context).chunk(2, -1)[1].unflatten(-1, (2, 8)).transpose(1, 2)
    by_hand = attention.project((first @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(context, context, visible_positions(tokens)), by_hand, rtol=1e-4, atol=1e-5)


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = Dropout(0.25)
    states = torch.ones(1001, 999, requires_grad=True)
    dropped = layer(states)
    assert abs((dropped == 0).float().mean().item() - 0.25) < 0.003
    assert abs(dropped.mean().item() - 1) < 0.005
    dropped.sum().backward()
    torch.testing.assert_close(states.grad, dropped.detach())
    torch.testing.assert_close(layer.eval()(states), states)


def test_errors_say_what_to_do(small_model):
    with pytest.raises(ValueError, match="the model sees 12"):
        small_model(torch.ones(1, 13, dtype=torch.long), torch.tensor([[0]]))
    with pytest.raises(ValueError, match="multiple"):
        BERT4Rec(ModelConfig(item_count=5, width=10, heads=3))
