import math

import numpy as np
import pytest
import torch
from torch import nn

from bertrec_utils.model import modern
from bertrec_utils.model.masking import MaskedBatch, append_mask, build_batch, sample_targets
from bertrec_utils.model.modern import (
    Block,
    CausalConv,
    Layout,
    ModernTransformer,
    rotate,
    rotations,
)
from conftest import model_settings, rows


def masked_batch(tokens, prefix, mask_ratio, next_ratio, mask_token):
    """The batch of histories `tokens` whose targets are sampled with seed 0."""
    tokens, prefix = np.asarray(tokens), np.asarray(prefix)
    cloze, next_item = sample_targets(tokens, prefix, mask_ratio, next_ratio, np.random.default_rng(0))
    return build_batch(tokens, prefix, cloze, next_item, mask_token)


def test_block_equals_pytorchs_encoder_layer():
    torch.manual_seed(0)
    block = Block(model_settings(width=24, heads=3, conv_size=0, dropout=0.0)).eval()
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

    history = torch.tensor([[0, 0, 1, 2, 3], [4, 5, 1, 2, 3]])
    states = torch.randn(2, 5, 24)
    visible = (history != 0)[:, None, None, :].expand(2, 1, 5, 5)
    nowhere = rotations(torch.zeros(2, 5), 4)  # all at one position: no rotation, as PyTorch's layer has none
    is_item = history != 0
    layout = Layout(nowhere, torch.zeros(2, 0, dtype=torch.int64), is_item[:, :, None], visible)
    expected = reference(states, src_key_padding_mask=~is_item)
    torch.testing.assert_close(block(states, layout)[is_item], expected[is_item], rtol=1e-4, atol=1e-5)


def test_causal_convolution_by_hand():
    conv = CausalConv(model_settings(width=4, conv_size=2))
    conv.weight = nn.Parameter(torch.tensor([[1.0, 1.0, 0.0, 2.0], [0.5, -1.0, 3.0, 0.0]]))
    history = torch.tensor([[[1.0, 1, 1, 1], [10, 10, 10, 10], [100, 100, 100, 100]]])
    of_history = [[0, 0, 0, 0], [1, 1, 0, 2], [10.5, 9, 3, 20]]
    of_targets = [[105, 90, 30, 200], [10.5, 9, 3, 20]]  # after the newest item, and at the position of the third
    expected = torch.tensor([[*of_history, *of_targets]])
    torch.testing.assert_close(conv(history, torch.tensor([[3, 2]])), expected)


def test_causal_convolutions_reach_as_far_back_as_they_should(small_model):
    """With attention silenced, two layers of them, of size 4, reach eight items back, and no further."""
    for block in small_model.blocks:
        for parameter in block.attention.project.parameters():
            nn.init.zeros_(parameter)
    histories = np.tile(np.arange(1, 11), (4, 1))
    histories[1, -1], histories[2, -8], histories[3, -9] = 20, 20, 20
    scores = small_model.score(rows(*histories))
    changes = np.abs(scores[1:] - scores[0]).max(1)
    assert (changes[:2] > 1e-3).all()
    assert changes[2] == 0


def test_an_untrained_network_is_one_without_the_causal_convolution_but_learns_it():
    scores = []
    for conv_size in (0, 4):
        torch.manual_seed(0)
        model = ModernTransformer(30, model_settings(conv_size=conv_size))
        scores.append(model.score(rows([1, 2, 3, 4, 5], [6, 7])))
    np.testing.assert_array_equal(scores[0], scores[1])
    model(masked_batch([[1, 2, 3, 4, 5]], [1], 0.0, 1.0, 31)).backward()
    assert all((block.conv.weight.grad != 0).any() for block in model.blocks)


def test_parts_of_a_batch_make_the_whole(small_model, monkeypatch):
    """One row at a time, three at a time, all at once: the same loss and the same gradients."""
    histories = np.random.default_rng(0).integers(1, 31, (7, 9))
    batch = masked_batch(histories, [0, 1, 2, 3, 4, 5, 9], 0.5, 0.5, small_model.mask_token)
    losses, gradients = [], []
    for rows_of_a_part in (1, 3, 100):
        monkeypatch.setattr(
            modern, "CACHED_STATES", rows_of_a_part * (batch.history.shape[1] + batch.target_positions.shape[1])
        )
        small_model.zero_grad()
        losses.append(small_model(batch))
        losses[-1].backward()
        gradients.append({name: value.grad.clone() for name, value in small_model.named_parameters()})
    torch.testing.assert_close(losses[0], losses[2])
    torch.testing.assert_close(losses[1], losses[2])
    torch.testing.assert_close(gradients[0], gradients[2])
    torch.testing.assert_close(gradients[1], gradients[2])


@torch.no_grad()
def test_the_causal_convolution_skips_masked_items(small_model):
    """With attention silenced, nothing but its own state depends on the state at a masked position."""
    block = small_model.blocks[0]
    for parameter in block.attention.project.parameters():
        nn.init.zeros_(parameter)
    states, layout = small_model.embed(cloze([3, 7, 1, 9], 1, small_model.mask_token))
    other = states.clone()
    other[0, 1] += torch.randn(16)
    unlike = (block(states, layout) - block(other, layout)).abs().amax(-1)[0] > 0
    assert unlike.tolist() == [False, True, False, False, False]


def test_rotation_is_that_of_the_paper():
    """Su et al., equation 34, in cosines and sines, written out for pairs of neighbouring coordinates."""
    vectors, positions = torch.randn(2, 3, 1, 8), torch.tensor([[0, 5, 190], [7, 8, 9]])
    turned = rotate(vectors, rotations(positions, 4))
    for row, column in np.ndindex(2, 3):
        for pair in range(4):
            angle = positions[row, column].item() * 1000 ** (-pair / 4)
            x, y = vectors[row, column, 0, 2 * pair : 2 * pair + 2].tolist()
            expected = [x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)]
            assert turned[row, column, 0, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(expected, abs=1e-4)


def test_rotated_match_depends_on_distance_alone():
    query, key = torch.randn(2, 1, 1, 3, 8)

    def match(*positions):
        turned = [rotations(torch.tensor([[position]]), 4) for position in positions]
        return (rotate(query, turned[0]) * rotate(key, turned[1])).sum(-1)

    torch.testing.assert_close(match(7, 3), match(107, 103), rtol=1e-4, atol=1e-4)
    assert (match(7, 3) - match(7, 4)).abs().max() > 1e-2


def test_rotation_is_as_exact_in_half_precision():
    """Neighbouring positions of a long history differ, though bfloat16 cannot tell 190 from 191."""
    vectors = torch.randn(1, 2, 1, 8).bfloat16()
    turned = rotate(vectors, rotations(torch.tensor([[190, 191]]), 4))
    assert turned.dtype == torch.bfloat16
    exact = rotate(vectors.float(), rotations(torch.tensor([[190, 191]]), 4))
    torch.testing.assert_close(turned.float(), exact, rtol=0.01, atol=0.01)


def test_targets_of_one_pass_are_predicted_as_if_each_were_alone(small_model):
    history = [3, 7, 1, 9, 4, 8, 2]
    together = masked_batch([[0, *history]], [3], 0.0, 1.0, small_model.mask_token)
    states = small_model.target_states(together)[0]
    for target, position in enumerate(together.target_positions[0].tolist()):
        before = torch.tensor([history[: position - 1]])  # the history so far, with nothing after it
        after = torch.tensor([[before.shape[1]]])
        alone = MaskedBatch(
            before, together.history_visible_until[:, 1:position] - 1, after, after, torch.zeros_like(after)
        )
        torch.testing.assert_close(states[target], small_model.target_states(alone)[0, 0], rtol=1e-4, atol=1e-4)


def test_next_item_targets_ignore_what_comes_later(small_model):
    first, second = (small_model.target_states(masked_batch([[3, 7, 1, last]], [1], 0.0, 1.0, 31)) for last in (9, 10))
    torch.testing.assert_close(first, second)


def test_padding_does_not_change_a_prediction(small_model):
    alone = small_model.score(rows([3, 7, 1]))
    beside_longer = small_model.score(rows([3, 7, 1], [5, 6, 7, 8, 9, 10, 11]))[:1]
    np.testing.assert_allclose(alone, beside_longer, rtol=1e-4, atol=1e-4)


def test_other_users_in_the_batch_do_not_matter(small_model):
    first = small_model.score(rows([3, 7, 1], [5, 6]))[0]
    second = small_model.score(rows([3, 7, 1], [9, 8]))[0]
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def cloze(history, position, mask_token):
    """The batch whose only target is the item at `position`, which is masked."""
    tokens = torch.tensor([history])
    tokens[0, position] = mask_token
    everything = torch.full((1, len(history)), len(history))
    positions = torch.tensor([[position]])
    return MaskedBatch(tokens, everything, positions, everything[:, :1], torch.tensor([[history[position]]]))


def test_order_matters_and_both_sides_are_seen(small_model):
    assert np.abs(small_model.score(rows([3, 7, 1])) - small_model.score(rows([7, 3, 1]))).max() > 1e-3
    left, right = (small_model.target_states(cloze([3, 4, after], 1, small_model.mask_token)) for after in (5, 6))
    assert (left - right).abs().max() > 1e-3  # what comes AFTER the mask changes its state


def test_row_of_nothing_but_padding_is_not_nan(small_model):
    batch = MaskedBatch(
        history=torch.tensor([[0, 0, 0], [1, 2, 3]]),
        history_visible_until=torch.full((2, 3), 3),
        target_positions=torch.full((2, 1), 3),
        visible_until=torch.full((2, 1), 3),
        labels=torch.tensor([[0], [3]]),
    )
    assert torch.isfinite(small_model.target_states(batch)).all()
    small_model.train()
    small_model(batch).backward()
    assert all(torch.isfinite(p.grad).all() for p in small_model.parameters() if p.grad is not None)


def test_scores_have_a_column_an_item_and_none_for_pad_or_mask(small_model):
    assert small_model.score(rows([1], [2, 3])).shape == (2, 30)


def test_loss_by_hand(small_model):
    batch = masked_batch([[0, 1, 2, 3], [4, 5, 6, 7]], [3, 1], 0.0, 1.0, 31)
    batch.labels[0, 0], batch.labels[1] = 0, torch.tensor([8, 4, 0])  # three columns are unused
    log_probability = small_model.logits(small_model.target_states(batch)).log_softmax(-1)
    expected = -(log_probability[1, 0, 7] + log_probability[1, 1, 3]) / 2
    torch.testing.assert_close(small_model(batch), expected)


def test_untrained_loss_is_that_of_guessing():
    torch.manual_seed(0)
    model = ModernTransformer(3416, model_settings())
    tokens = np.random.default_rng(0).integers(1, 3417, (8, 50))
    batch = masked_batch(tokens, np.full(8, 25), 0.3, 0.5, model.mask_token)
    assert abs(model(batch).item() - math.log(3416)) < 0.3  # with N(0, 1) weights it would be above 20


def test_output_weights_are_the_item_embeddings(small_model):
    states = torch.randn(4, 16)
    expected = states @ small_model.item_embedding.weight[1:31].T + small_model.item_bias
    torch.testing.assert_close(small_model.logits(states), expected)


@torch.no_grad()
def test_attention_by_hand(small_model):
    """Equation 1, written out: weights that sum to one over what is visible, and the values they mix."""
    batch = append_mask(rows([1, 2, 3], [4]), 12)
    states, layout = small_model.embed(batch)
    attention = small_model.blocks[0].attention
    query, key, value = attention.query_key_value(states, states[:, :3], layout.rotation)
    weights = (query @ key.transpose(-2, -1) / 8**0.5).masked_fill(~layout.visible, -torch.inf).softmax(-1)
    assert weights.shape == (2, 2, 4, 3)  # three positions and one target see three positions
    assert (weights[1, :, :, :2] == 0).all()  # nobody sees padding
    by_hand = attention.project((weights @ value).transpose(1, 2).flatten(2))
    gathered = attention(states, states[:, :3], layout.visible, layout.rotation)
    torch.testing.assert_close(gathered, by_hand, rtol=1e-4, atol=1e-5)


def test_long_history_is_cut_to_the_newest(small_model):
    long = np.arange(1, 21)
    np.testing.assert_allclose(small_model.score(rows(long)), small_model.score(rows(long[-12:])), rtol=1e-5)


def test_scoring_leaves_the_model_as_it_was(small_model):
    for is_training in (True, False):
        small_model.train(is_training)
        scores = small_model.score(rows([1, 2, 3]))
        assert small_model.training == small_model.blocks[0].dropout.training == is_training
        np.testing.assert_array_equal(scores, small_model.score(rows([1, 2, 3])))  # without dropout


def test_training_drops_embeddings(small_model):
    small_model.train()
    for block in small_model.blocks:
        block.dropout.rate = 0.0
    batch = masked_batch([[1, 2, 3, 4, 5]], [3], 0.5, 1.0, 31)
    assert small_model(batch) != small_model(batch)


@pytest.mark.parametrize("silent", ["project", "contract"])
def test_training_drops_what_attention_and_feed_forward_add(small_model, silent):
    """With one of the two silenced, what the other adds to the states is dropped in part, and scaled up in part."""
    block = small_model.blocks[0].train()
    part = {"project": block.attention.project, "contract": block.contract}[silent]
    for parameter in part.parameters():
        torch.nn.init.zeros_(parameter)
    block.conv.weight.data.zero_()
    states, layout = small_model.embed(append_mask(rows([1, 2, 3, 4]), 12))
    added = block(states, layout) - states
    whole = block.eval()(states, layout) - states
    dropped = added == 0
    assert 0.2 < dropped.float().mean() < 0.8
    torch.testing.assert_close(added[~dropped], 2 * whole[~dropped], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_causal_model_predicts_in_training_what_it_predicts_in_the_test():
    """Each next-item target of a pass has the very scores that its history has in the test."""
    torch.manual_seed(0)
    model = ModernTransformer(30, model_settings(max_length=12, width=16, heads=2, causal=True)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    items = [3, 14, 15, 9, 26, 5]
    after_the_first = np.array([[False] + [True] * 5])
    nothing = np.zeros_like(after_the_first)
    batch = build_batch(np.array([items]), np.array([1]), nothing, after_the_first, model.mask_token)
    in_training = model.logits(model.target_states(batch))[0].numpy()
    in_the_test = np.concatenate([model.score(rows(items[:count])) for count in range(1, 6)])
    np.testing.assert_allclose(in_training, in_the_test, rtol=1e-4, atol=1e-5)
