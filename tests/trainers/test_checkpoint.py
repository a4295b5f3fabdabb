import numpy as np
import pytest
import torch

from trainers.checkpoint import DamagedStateError, pack, unpack
from trainers.state import TrialState


def state(seed: int, update: int, diverged_at: int | None = None) -> TrialState:
    draw = torch.Generator().manual_seed(seed)

    def layers():
        return [(torch.randn(i, o, generator=draw), torch.randn(o, generator=draw)) for i, o in ((5, 4), (4, 3))]

    return TrialState(update, layers(), layers(), diverged_at)


def test_states_come_back_bit_by_bit() -> None:
    states = {3: state(1, 40), 17: state(2, 7, diverged_at=6)}
    states[17].scalars = {"damping": 1 / 3, "next_work": 7.0}
    back = unpack(pack(states))
    assert back[17].scalars == states[17].scalars
    assert back[3].scalars == {}
    assert set(back) == {3, 17}
    for number, before in states.items():
        after = back[number]
        assert (after.update, after.diverged_at) == (before.update, before.diverged_at)
        for a, b in zip(before.params + before.velocity, after.params + after.velocity, strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])


def test_only_wanted_states_are_read() -> None:
    assert set(unpack(pack({1: state(1, 1), 2: state(2, 2)}), {2, 9})) == {2}


def test_an_archive_without_trials_is_whole() -> None:
    assert unpack(pack({})) == {}


def test_damage_anywhere_is_noticed() -> None:
    data = pack({1: state(1, 1)})
    for cut in (0, 1, len(data) // 2, len(data) - 1):
        with pytest.raises(DamagedStateError):
            unpack(data[:cut])
    draw = np.random.default_rng(0)
    noticed = 0
    for place in draw.integers(0, len(data), 60):
        changed = bytearray(data)
        changed[place] ^= 0xFF
        try:
            after = unpack(bytes(changed))
        except DamagedStateError:
            noticed += 1
        else:  # a byte of the zip's own bookkeeping that nobody reads: the numbers are untouched
            assert torch.equal(after[1].params[0][0], state(1, 1).params[0][0])
    assert noticed > 40
