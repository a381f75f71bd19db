import pytest
import torch
import torch.nn.functional as F

from bertrec_utils.loss import ROWS, ChunkedCrossEntropy


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
