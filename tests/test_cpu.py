import pytest
import torch
import torch.nn.functional as F

from bertrec_utils.cpu import ROWS, ChunkedCrossEntropy, Dropout


@pytest.mark.parametrize("count", [1, ROWS, 2 * ROWS + 5])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_equals_pytorchs_cross_entropy_and_its_gradients(count, size):
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.float64) * size for shape in ((count, 6), (50, 6), (50,))]
    labels = torch.randint(0, 50, (count,))
    results = []
    for loss_of in (
        lambda states, weight, bias: ChunkedCrossEntropy.apply(states, weight, bias, labels),
        lambda states, weight, bias: F.cross_entropy(F.linear(states, weight, bias), labels),
    ):
        leaves = [value.clone().requires_grad_() for value in inputs]
        loss = loss_of(*leaves)
        (3 * loss).backward()  # a factor, as in any larger graph
        results.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


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
