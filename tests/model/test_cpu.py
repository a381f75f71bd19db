import os
import platform
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bertrec_utils import cpu
from bertrec_utils.model.modern import Dropout, scaled_dot_product, multiplies_bfloat16


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


def test_attention_is_not_made_in_bfloat16_on_a_cpu():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4) for _ in range(3))
    visible = torch.rand(2, 1, 5, 5) < 0.5
    visible[..., 0] = True
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    torch.testing.assert_close(scaled_dot_product(query, key, value, visible), expected)
    rounded = [part.bfloat16() for part in (query, key, value)]
    with torch.autocast("cpu", torch.bfloat16):
        found = scaled_dot_product(*rounded, visible)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


def test_bfloat16_is_for_devices_that_multiply_it():
    assert multiplies_bfloat16(torch.device("cpu")) == bool(torch.cpu.get_capabilities().get("amx_bf16"))
    assert not multiplies_bfloat16(torch.device("mps"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to")
def test_memory_that_is_free_again_goes_back_to_the_system():
    def resident():  # bytes
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    many = [torch.ones(25_000) for _ in range(2_000)]  # 200 MB in small pieces
    del many[:-1]  # the last one holds all before it
    before = resident()
    cpu.release_memory()
    assert before - resident() > 100_000_000
