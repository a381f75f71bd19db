import math

import numpy as np
import pytest
import torch
from torch import nn

from bertrec_utils.masking import Questions, ask, question_batch
from bertrec_utils.model import BERT4Rec, Block, Dropout, ModelConfig, visible_films
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

    history = torch.tensor([[0, 0, 1, 2, 3], [4, 5, 1, 2, 3]])
    states = torch.randn(2, 5, 24)
    visible = visible_films(history, torch.full((2, 5), 5), mask_token=6)
    nowhere = torch.zeros(2, 5)  # all at one place: no rotation, as PyTorch's layer has none
    expected = reference(states, src_key_padding_mask=history == 0)
    found = block(states, nowhere, visible)
    is_item = history != 0
    torch.testing.assert_close(found[is_item], expected[is_item], rtol=1e-4, atol=1e-5)


def test_rotated_match_depends_on_distance_alone():
    attention = Block(ModelConfig(item_count=5, width=24, heads=3)).attention
    query, key = torch.randn(2, 1, 1, 3, 8)

    def match(query_place, key_place):
        places = torch.tensor([[query_place]]), torch.tensor([[key_place]])
        return (attention.rotate(query, places[0]) * attention.rotate(key, places[1])).sum(-1)

    torch.testing.assert_close(match(7, 3), match(107, 103), rtol=1e-4, atol=1e-4)
    assert (match(7, 3) - match(7, 4)).abs().max() > 1e-2


def test_questions_asked_together_are_answered_as_if_asked_alone(small_model):
    history = [3, 7, 1, 9, 4, 8, 2]
    tokens = np.array([[0, *history]])
    together = ask(tokens, np.array([3]), 0.0, 1.0, small_model.mask_token, np.random.default_rng(0))
    states = small_model(together)[0]
    for question, place in enumerate(together.places[0].tolist()):
        before = tokens[:, 1:place]  # the history so far, asked the same way but with nothing after it
        alone = ask(before, np.array([3]), 0.0, 0.0, small_model.mask_token, np.random.default_rng(0))
        after = torch.tensor([[before.shape[1]]])
        alone = alone._replace(
            history=torch.from_numpy(before), places=after, sees=after, labels=torch.zeros_like(after)
        )
        torch.testing.assert_close(states[question], small_model(alone)[0, 0], rtol=1e-4, atol=1e-4)


def test_next_film_questions_ignore_what_comes_later(small_model):
    def states(last):
        batch = ask(
            np.array([[3, 7, 1, last]]), np.array([1]), 0.0, 1.0, small_model.mask_token, np.random.default_rng(0)
        )
        return small_model(batch)[0]

    torch.testing.assert_close(states(9), states(10))


def test_padding_does_not_change_a_prediction(small_model):
    alone = small_model.score(rows([3, 7, 1]))
    beside_longer = small_model.score(rows([3, 7, 1], [5, 6, 7, 8, 9, 10, 11]))[:1]
    np.testing.assert_allclose(alone, beside_longer, rtol=1e-4, atol=1e-4)


def test_other_users_in_the_batch_do_not_matter(small_model):
    first = small_model.score(rows([3, 7, 1], [5, 6]))[0]
    second = small_model.score(rows([3, 7, 1], [9, 8]))[0]
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def cloze(history, hidden, mask_token):
    """The question which film is behind the place `hidden`."""
    tokens = torch.tensor([history])
    tokens[0, hidden] = mask_token
    everything = torch.full((1, len(history)), len(history))
    place = torch.tensor([[hidden]])
    return Questions(tokens, everything, place, everything[:, :1], torch.tensor([[history[hidden]]]))


def test_order_matters_and_both_sides_are_seen(small_model):
    assert np.abs(small_model.score(rows([3, 7, 1])) - small_model.score(rows([7, 3, 1]))).max() > 1e-3
    left, right = (small_model(cloze([3, 4, after], 1, small_model.mask_token)) for after in (5, 6))
    assert (left - right).abs().max() > 1e-3  # what comes AFTER the mask changes its state


def test_row_of_nothing_but_padding_is_not_nan(small_model):
    batch = Questions(
        history=torch.tensor([[0, 0, 0], [1, 2, 3]]),
        history_sees=torch.full((2, 3), 3),
        places=torch.full((2, 1), 3),
        sees=torch.full((2, 1), 3),
        labels=torch.tensor([[0], [3]]),
    )
    assert torch.isfinite(small_model(batch)).all()
    small_model.train()
    small_model.loss(batch).backward()
    assert all(torch.isfinite(p.grad).all() for p in small_model.parameters() if p.grad is not None)


def test_scores_have_a_column_an_item_and_none_for_pad_or_mask(small_model):
    assert small_model.score(rows([1], [2, 3])).shape == (2, 30)


def test_loss_by_hand(small_model):
    batch = ask(np.array([[0, 1, 2, 3], [4, 5, 6, 7]]), np.array([3, 1]), 0.0, 1.0, 31, np.random.default_rng(0))
    batch.labels[0, 0], batch.labels[1] = 0, torch.tensor([8, 4, 0])  # three places are unused
    log_probability = small_model.logits(small_model(batch)).log_softmax(-1)
    expected = -(log_probability[1, 0, 7] + log_probability[1, 1, 3]) / 2
    torch.testing.assert_close(small_model.loss(batch), expected)


def test_untrained_loss_is_that_of_guessing():
    torch.manual_seed(0)
    model = BERT4Rec(ModelConfig(item_count=3416))
    tokens = np.random.default_rng(0).integers(1, 3417, (8, 50))
    batch = ask(tokens, np.full(8, 25), 0.3, 0.5, model.mask_token, np.random.default_rng(0))
    assert abs(model.loss(batch).item() - math.log(3416)) < 0.3  # with N(0, 1) weights it would be above 20


def test_output_weights_are_the_item_embeddings(small_model):
    states = torch.randn(4, 16)
    expected = states @ small_model.item_embedding.weight[1:31].T + small_model.item_bias
    torch.testing.assert_close(small_model.logits(states), expected)


@torch.no_grad()
def test_attention_maps_are_what_the_model_uses(small_model):
    batch = question_batch(rows([1, 2, 3], [4]), 12)
    first = small_model.attention_maps(batch)[0]
    assert first.shape == (2, 2, 4, 3)  # three places and one question look at three places
    torch.testing.assert_close(first.sum(-1), torch.ones(2, 2, 4))
    assert (first[1, :, :, :2] == 0).all()  # nobody looks at padding
    attention = small_model.blocks[0].attention
    states, places, visible = small_model.start(batch)
    context = small_model.blocks[0].attention_norm(states)
    value = attention.key_value(context[:, :3]).chunk(2, -1)[1].unflatten(-1, (2, 8)).transpose(1, 2)
    by_hand = attention.project((first @ value).transpose(1, 2).flatten(2))
    found = attention(context, context[:, :3], visible, places, places[:, :3])
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-5)


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


def test_long_history_is_cut_to_the_newest(small_model):
    long = np.arange(1, 21)
    np.testing.assert_allclose(small_model.score(rows(long)), small_model.score(rows(long[-12:])), rtol=1e-5)


def test_heads_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="change one of them"):
        BERT4Rec(ModelConfig(item_count=5, width=10, heads=3))
