import numpy as np
import pytest
import torch
from scipy.stats import truncnorm
from torch import nn

from bertrec_utils.data.sequences import PAD
from bertrec_utils.model import bert4rec as module
from bertrec_utils.model.bert4rec import BERT4Rec, Block
from bertrec_utils.model.masking import build_batch, training_batches
from bertrec_utils.model.modern import ModernTransformer, build_network
from bertrec_utils.settings import RECIPES, get_preset
from conftest import model_settings, rows, settings

SHAPE = {"network": "bert4rec", "max_length": 12, "width": 16, "layers": 2, "heads": 2, "dropout": 0.5}


@pytest.fixture
def bert4rec():
    torch.manual_seed(0)
    model = BERT4Rec(30, model_settings(**SHAPE))
    for parameter in model.parameters():  # away from the tiny initial weights, so that mistakes show
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_block_equals_pytorchs_encoder_layer_with_the_norm_last():
    torch.manual_seed(0)
    block = Block(model_settings(width=24, heads=3, dropout=0.0)).eval()
    reference = nn.TransformerEncoderLayer(24, 3, 96, dropout=0.0, activation="gelu", batch_first=True).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    copies = {
        "self_attn.out_proj": block.project,
        "linear1": block.expand,
        "linear2": block.contract,
        "norm1": block.attention_norm,
        "norm2": block.feed_forward_norm,
    }
    weights = {f"{name}.{part}": value for name, its in copies.items() for part, value in its.state_dict().items()}
    for part in ("weight", "bias"):  # PyTorch has the three in one
        three = [getattr(module, part) for module in (block.query, block.key, block.value)]
        weights[f"self_attn.in_proj_{part}"] = torch.cat(three)
    reference.load_state_dict(weights)
    states, padding = torch.randn(2, 5, 24), torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    expected = reference(states, src_key_padding_mask=padding)
    torch.testing.assert_close(
        block(states, states, ~padding[:, None])[~padding], expected[~padding], rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_loss_is_the_mean_over_masked_items_of_equation_8(bert4rec):
    tokens = np.array([[0, 0, 3, 4, 5], [6, 7, 8, 9, 10]])
    masked = np.array([[0, 0, 0, 1, 0], [1, 0, 0, 0, 1]], dtype=bool)
    batch = build_batch(tokens, np.array([3, 5]), masked, np.zeros_like(masked), bert4rec.mask_token)
    history = torch.tensor([[0, 0, 3, 31, 5], [31, 7, 8, 9, 31]])
    terms = []
    for row, position, item in ((0, 3, 4), (1, 0, 6), (1, 4, 10)):
        state = bert4rec.encode(history)[row, position].double()
        wide = state @ bert4rec.project.weight.T.double() + bert4rec.project.bias
        wide = wide * (1 + torch.erf(wide / 2**0.5)) / 2
        normed = (wide - wide.mean()) / (wide.var(correction=0) + 1e-5) ** 0.5
        normed = normed * bert4rec.project_norm.weight + bert4rec.project_norm.bias
        score = (normed @ bert4rec.item_embedding.weight[1:31].T.double() + bert4rec.item_bias).exp()
        terms.append(-(score[item - 1] / score.sum()).log().item())
    assert bert4rec(batch).item() == pytest.approx(np.mean(terms), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("cached_floats", [1, 4 * 16 * 30, 2**30])
def test_only_what_is_asked_for_is_computed_and_it_is_the_same(bert4rec, cached_floats, monkeypatch):
    """Whether the histories go through the network one by one, a few at a time, or all at once."""
    monkeypatch.setattr(module, "CACHED_FLOATS", cached_floats)
    lengths = [12, 3, 7, 1, 12, 5, 5, 2, 9]
    tokens = torch.zeros(len(lengths), 12, dtype=torch.int64)
    for row, length in enumerate(lengths):
        tokens[row, 12 - length :] = torch.randint(1, 32, (length,), generator=torch.Generator().manual_seed(row))
    positions = torch.tensor([[11, 12 - min(length, 3)] for length in lengths])
    whole = bert4rec.encode(tokens)[torch.arange(len(lengths))[:, None], positions]
    torch.testing.assert_close(bert4rec.target_states(tokens, positions), whole, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing(bert4rec):
    alone = bert4rec.score(rows([3, 4, 5]))
    together = bert4rec.score(rows([3, 4, 5], [6, 7, 8, 9, 10, 11, 12, 13]))
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-4, atol=1e-5)


def test_only_the_newest_items_that_fit_beside_the_mask_are_read(bert4rec):
    newest = list(range(1, 12))
    np.testing.assert_array_equal(bert4rec.score(rows(newest)), bert4rec.score(rows([20, 21, *newest])))
    assert (bert4rec.score(rows(newest)) != bert4rec.score(rows([20, *newest[1:]]))).any()


def test_the_order_of_the_items_counts(bert4rec):
    items = list(range(3, 14))
    assert np.abs(bert4rec.score(rows(items)) - bert4rec.score(rows(items[::-1]))).max() > 1e-3


@torch.no_grad()
def test_masks_are_in_the_sequence_and_are_attended_to(bert4rec):
    """In the paper's network [MASK]s see each other: masking one more item changes what is predicted for the others."""
    one, two = torch.tensor([[3, 4, 31, 6, 7]]), torch.tensor([[3, 31, 31, 6, 7]])
    before = bert4rec.encode(two)[0, 2]
    bert4rec.item_embedding.weight[31] *= -1
    assert (bert4rec.encode(two)[0, 2] - before).abs().max() > 1e-3
    assert (bert4rec.encode(one)[0, 2] - bert4rec.encode(two)[0, 2]).abs().max() > 1e-3


@torch.no_grad()
def test_a_history_with_its_newest_item_masked_is_predicted_as_in_the_test(bert4rec):
    training = settings(p_causal=0.0, p_cloze=1.0, p_mask_last=1.0, batch_size=1).training
    (batch,) = training_batches(rows([3, 4, 5, 6]), bert4rec.mask_token, training, 12, np.random.default_rng(0))
    assert batch.labels.tolist() == [[6]]
    in_training = bert4rec.logits(bert4rec.encode(batch.history)[:, -1]).numpy()
    np.testing.assert_allclose(in_training, bert4rec.score(rows([3, 4, 5])), rtol=1e-4, atol=1e-5)


def test_every_recipe_has_the_network_and_the_start_that_its_name_says():
    chosen = {recipe: get_preset("tiny", recipe) for recipe in RECIPES}
    kinds = {recipe: type(build_network(30, settings.model)) for recipe, settings in chosen.items()}
    assert kinds == {
        "bert4rec": BERT4Rec,
        "modern-cloze": ModernTransformer,
        "modern-next": ModernTransformer,
        "modern-both": ModernTransformer,
    }
    assert {recipe for recipe, settings in chosen.items() if settings.start == "random"} == {"bert4rec"}
    assert get_preset("tiny", "bert4rec", "counts").start == "counts"


def test_targets_that_are_not_masked_are_refused():
    with pytest.raises(ValueError, match=r"predicts masked items only; set p_cloze=1 and p_causal=0"):
        get_preset("tiny", "bert4rec").change(p_cloze=0.5)
    with pytest.raises(ValueError, match="predicts masked items only"):
        get_preset("tiny").change(network="bert4rec")


def test_training_drops_embeddings(bert4rec):
    """Without a block, what comes out are the embeddings: in part dropped, in part scaled up."""
    bert4rec.blocks, bert4rec.embedding_norm = nn.ModuleList(), nn.Identity()
    tokens = torch.arange(1, 13).repeat(50, 1)
    whole = bert4rec.encode(tokens)
    dropped = bert4rec.train().encode(tokens)
    is_dropped = dropped == 0
    assert 0.45 < is_dropped.float().mean() < 0.55
    torch.testing.assert_close(dropped[~is_dropped], 2 * whole[~is_dropped])


@pytest.mark.parametrize("silent", ["attention", "feed-forward"])
def test_training_drops_what_attention_and_feed_forward_add(silent):
    """With one of the two silenced and no norms, the difference is what the other adds: in part dropped, else scaled
    up."""
    torch.manual_seed(0)
    block = Block(model_settings(width=24, heads=3, dropout=0.5))
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    part = {"attention": block.project, "feed-forward": block.contract}[silent]
    for parameter in part.parameters():
        nn.init.zeros_(parameter)
    block.attention_norm = block.feed_forward_norm = nn.Identity()
    states, visible = torch.randn(20, 12, 24), torch.ones(20, 1, 12, dtype=torch.bool)
    whole = block.eval()(states, states, visible) - states
    added = block.train()(states, states, visible) - states
    is_dropped = added == 0
    assert 0.45 < is_dropped.float().mean() < 0.55
    torch.testing.assert_close(added[~is_dropped], 2 * whole[~is_dropped], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("network", ["bert4rec", "modern"])
def test_initial_weights(network):
    """N(0, .02), cut off at two deviations as in BERT; but Xavier's deviation for the hidden matrices of bert4rec.
    Biases are 0, and norms change nothing."""
    torch.manual_seed(0)
    model = build_network(3000, model_settings(network=network, width=64))
    initial = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert (initial["item_embedding.weight"][PAD] == 0).all()
    initial["item_embedding.weight"] = initial["item_embedding.weight"][1:]
    matrices = {name: value for name, value in initial.items() if value.ndim == 2 and "conv" not in name}
    assert len(matrices) >= 2 * 4 + 1
    for name, matrix in matrices.items():
        if network == "bert4rec" and "embedding" not in name:
            deviation = (2 / sum(matrix.shape)) ** 0.5
        else:
            assert 0.038 < matrix.abs().max() <= 0.04, name
            deviation = 0.02 * truncnorm(-2, 2).std()
        assert matrix.std().item() == pytest.approx(deviation, rel=0.04), name
        assert abs(matrix.mean()) < 5 * deviation / matrix.numel() ** 0.5, name
    for name in initial.keys() - matrices.keys():
        assert (initial[name] == float("norm.weight" in name)).all(), name
