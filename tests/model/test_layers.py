import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bertrec_utils.model.layers import Dropout, scaled_dot_product, slices_that_fit
from bertrec_utils.model.modern import build_network
from conftest import model_settings, rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("network", ["bert4rec", "modern"])
def test_a_network_of_any_precision_has_states_of_it(network, dtype):
    model = build_network(9, model_settings(network=network, dropout=0.5)).to(dtype)
    assert model.user_vectors(rows([1, 2, 3])).dtype == dtype and model.score(rows([1, 2, 3])).dtype == "float32"


@given(st.lists(st.integers(1, 9), min_size=1), st.integers(1, 40))
def test_rows_go_together_as_far_as_the_cache_holds_them(lengths, most):
    parts = list(slices_that_fit(lengths, most))
    assert [row for part in parts for row in range(len(lengths))[part]] == list(range(len(lengths)))
    sizes = [max(lengths[part]) * len(lengths[part]) for part in parts]
    assert all(size <= most or len(lengths[part]) == 1 for size, part in zip(sizes, parts, strict=True))
    for part in parts[:-1]:  # and one more would not fit
        longer = lengths[part.start : part.stop + 1]
        assert max(longer) * len(longer) > most


@pytest.mark.parametrize("rate", [0.25, 0.999])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    layer = Dropout(rate)
    states = torch.ones(1001, 999, requires_grad=True)
    dropped = layer(states)
    assert abs((dropped == 0).float().mean().item() - rate) < 0.004  # 1/256 is the step
    assert abs(dropped.mean().item() - 1) < 0.1
    dropped.sum().backward()
    torch.testing.assert_close(states.grad, dropped.detach())
    torch.testing.assert_close(layer.eval()(states), states)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5])
def test_impossible_dropout_is_an_error(rate):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        Dropout(rate)


def test_attention_is_not_computed_in_bfloat16_on_a_cpu():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4) for _ in range(3))
    visible = torch.rand(2, 1, 5, 5) < 0.5
    visible[..., 0] = True
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    torch.testing.assert_close(scaled_dot_product(query, key, value, visible), expected)
    rounded = [part.bfloat16() for part in (query, key, value)]
    with torch.autocast("cpu", torch.bfloat16):
        found = scaled_dot_product(*rounded, visible)
    of_rounded = F.scaled_dot_product_attention(*(part.float() for part in rounded), attn_mask=visible)
    torch.testing.assert_close(found, of_rounded.bfloat16(), atol=0, rtol=0)
