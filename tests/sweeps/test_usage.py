import os

import psutil

from sweeps.usage import usage


def test_a_process_knows_what_it_uses() -> None:
    before = usage("cpu")
    used = psutil.Process(os.getpid())
    assert before.keys() == {"rss_bytes", "cpu_s"}
    held = bytearray(64 * 2**20)
    held[::4096] = b"x" * len(held[::4096])  # touched, so that it is really there
    x = 0
    while usage()["cpu_s"] < before["cpu_s"] + 0.05:
        x += sum(range(10_000))
    after = usage("cpu")
    assert 0.9 * 64 * 2**20 < after["rss_bytes"] - before["rss_bytes"] < 1.5 * 64 * 2**20
    assert after["cpu_s"] <= sum(used.cpu_times()[:2]) + 0.01


def test_a_gpu_that_is_not_there_is_not_told_of() -> None:
    import torch

    if not torch.cuda.is_available():
        assert usage("cuda").keys() == {"rss_bytes", "cpu_s"}
        return
    found = usage("cuda")
    assert found["gpu"].startswith(("GPU-", "MIG-"))
    assert 0 <= found["gpu_bytes"] <= found["gpu_used_bytes"] <= found["gpu_total_bytes"]
