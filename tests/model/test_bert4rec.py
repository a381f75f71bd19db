import numpy as np
import pytest
import torch
from torch import nn

from bertrec_utils.model.modern import ModernTransformer
from bertrec_utils.model.bert4rec import BERT4Rec, Block, network
from bertrec_utils.settings import RECIPES, get_preset
from bertrec_utils.model.masking import ask, training_batches
from conftest import preset, rows

SHAPE = {"paper": True, "max_length": 12, "width": 16, "layers": 2, "heads": 2, "dropout": 0.5}


@pytest.fixture
def paper():
    torch.manual_seed(0)
    model = BERT4Rec(30, preset(**SHAPE))
    for parameter in model.parameters():  # away from the tiny initial weights, so that mistakes show
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_block_equals_pytorchs_encoder_layer_with_the_norm_last():
    torch.manual_seed(0)
    block = Block(preset(width=24, heads=3, dropout=0.0)).eval()
    reference = nn.TransformerEncoderLayer(24, 3, 96, dropout=0.0, activation="gelu", batch_first=True).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    copies = {
        "self_attn": block.attention,
        "linear1": block.expand,
        "linear2": block.contract,
        "norm1": block.attention_norm,
        "norm2": block.feed_forward_norm,
    }
    reference.load_state_dict(
        {f"{name}.{part}": value for name, module in copies.items() for part, value in module.state_dict().items()}
    )
    states, padding = torch.randn(2, 5, 24), torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    expected = reference(states, src_key_padding_mask=padding)
    torch.testing.assert_close(block(states, padding)[~padding], expected[~padding], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_loss_is_the_mean_over_hidden_films_of_equation_8(paper):
    tokens = np.array([[0, 0, 3, 4, 5], [6, 7, 8, 9, 10]])
    hidden = np.array([[0, 0, 0, 1, 0], [1, 0, 0, 0, 1]], dtype=bool)
    questions = ask(tokens, np.array([3, 5]), hidden, np.zeros_like(hidden), paper.mask_token)
    shown = torch.tensor([[0, 0, 3, 31, 5], [31, 7, 8, 9, 31]])
    terms = []
    for row, place, film in ((0, 3, 4), (1, 0, 6), (1, 4, 10)):
        state = paper.states(shown)[row, place].double()
        wide = state @ paper.project.weight.T.double() + paper.project.bias
        score = (wide * (1 + torch.erf(wide / 2**0.5)) / 2) @ paper.item_embedding.weight[1:31].T.double()
        score = (score + paper.item_bias).exp()
        terms.append(-(score[film - 1] / score.sum()).log().item())
    assert paper(questions).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_padding_changes_nothing(paper):
    alone = paper.score(rows([3, 4, 5]))
    together = paper.score(rows([3, 4, 5], [6, 7, 8, 9, 10, 11, 12, 13]))
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-4, atol=1e-5)


def test_only_the_newest_films_that_fit_beside_the_mask_are_read(paper):
    newest = list(range(1, 12))
    np.testing.assert_array_equal(paper.score(rows(newest)), paper.score(rows([20, 21, *newest])))
    assert (paper.score(rows(newest)) != paper.score(rows([20, *newest[1:]]))).any()


def test_the_order_of_the_films_counts(paper):
    films = list(range(3, 14))
    assert np.abs(paper.score(rows(films)) - paper.score(rows(films[::-1]))).max() > 1e-3


@torch.no_grad()
def test_masks_stand_in_the_sequence_and_are_looked_at(paper):
    """In the paper's network [MASK]s look at each other: asking about one more film changes the others' answers."""
    one, two = torch.tensor([[3, 4, 31, 6, 7]]), torch.tensor([[3, 31, 31, 6, 7]])
    before = paper.states(two)[0, 2]
    paper.item_embedding.weight[31] += 1
    assert (paper.states(two)[0, 2] - before).abs().max() > 1e-3
    assert (paper.states(one)[0, 2] - paper.states(two)[0, 2]).abs().max() > 1e-3


@torch.no_grad()
def test_a_last_only_question_is_the_question_of_the_test(paper):
    settings = preset(**SHAPE, p_causal=0.0, p_cloze=1.0, p_mask_last=1.0, batch_size=1)
    (batch,) = training_batches(rows([3, 4, 5, 6]), paper.mask_token, settings, np.random.default_rng(0))
    assert batch.labels.tolist() == [[6]]
    asked = paper.logits(paper.states(batch.history)[:, -1]).numpy()
    np.testing.assert_allclose(asked, paper.score(rows([3, 4, 5])), rtol=1e-4, atol=1e-5)


def test_every_recipe_has_the_network_that_its_name_says():
    kinds = {recipe: type(network(30, get_preset("tiny", recipe))) for recipe in RECIPES}
    assert {recipe for recipe, kind in kinds.items() if kind is BERT4Rec} == {
        "bert4rec-paper",
        "bert4rec-paper-warm",
    }
    assert kinds["ours"] is kinds["sasrec"] is ModernTransformer
    assert {recipe for recipe in RECIPES if get_preset("tiny", recipe).warm_start} == {
        "ours",
        "sasrec-warm",
        "bert4rec-paper-warm",
    }
