"""What is asked of PyTorch about a GPU, where there is none."""

import pytest
import torch

from trainers.devices import keep_to


@pytest.mark.parametrize(("device", "number"), [("cuda", 3), ("cuda:1", 1)])
def test_a_share_is_of_the_gpu_that_is_meant(device: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyTorch's own rules of which number that is: a device without one is the present one only if left out."""
    kept = {}
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", lambda share, n: kept.update({n: share}), raising=False)
    for share in (1.0, 2.0):
        keep_to(device, share)
    assert kept == {}
    keep_to(device, 0.25)
    keep_to("cpu", 0.5)
    assert kept == {number: 0.25}
