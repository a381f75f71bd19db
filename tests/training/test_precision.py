import os
import platform
from pathlib import Path

import pytest
import torch

from bertrec_utils.training.devices import multiplies_bfloat16, release_memory


@pytest.mark.parametrize(("has", "expected"), [({"amx_bf16": True}, True), ({"amx_bf16": False}, False), ({}, False)])
def test_bfloat16_is_for_devices_that_multiply_it(monkeypatch, has, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert multiplies_bfloat16(torch.device("cpu")) == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older PyTorch
    assert not multiplies_bfloat16(torch.device("cpu"))
    assert not multiplies_bfloat16(torch.device("mps"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to")
def test_memory_that_is_free_again_goes_back_to_the_system():
    def resident():  # bytes
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    many = [torch.ones(25_000) for _ in range(2_000)]  # 200 MB in small pieces
    del many[:-1]  # the last one holds all before it
    before = resident()
    release_memory()
    assert before - resident() > 100_000_000
