import numpy as np
import pytest
import torch

from tests.trainers.cases import NETS, data, task
from trainers.config import SeedConfig
from trainers.data import Data, batch_indices, batch_span, index_tensors

SEED = SeedConfig(3)


def test_an_epoch_visits_each_example_once_but_for_a_short_last_batch() -> None:
    epoch = np.concatenate([batch_indices(23, 5, SEED, t) for t in range(4)])
    assert len(set(epoch.tolist())) == 20
    assert set(epoch.tolist()) <= set(range(23))
    whole = np.concatenate([batch_indices(20, 5, SEED, t) for t in range(4, 8)])
    assert sorted(whole.tolist()) == list(range(20))


def test_epochs_seeds_and_stages_differ_and_repeat_themselves() -> None:
    def epoch(seed: SeedConfig, number: int) -> list[int]:
        return batch_span(40, 10, seed, 4 * number, 4).ravel().tolist()

    orders = [epoch(SEED, 0), epoch(SEED, 1), epoch(SeedConfig(4), 0), epoch(SeedConfig(3, "confirm"), 0)]
    assert len({tuple(order) for order in orders}) == 4
    assert epoch(SEED, 0) == orders[0]


def test_a_span_is_its_batches_across_epochs() -> None:
    span = batch_span(23, 5, SEED, 2, 9)
    assert span.shape == (9, 5)
    for i, row in enumerate(span):
        assert np.array_equal(row, batch_indices(23, 5, SEED, 2 + i))


def test_slots_at_one_update_share_their_batch_and_others_have_their_own() -> None:
    shared = index_tensors(23, 5, [(SEED, 3)] * 4, 2)
    assert [len(row) for row in shared] == [5, 5]
    apart = index_tensors(23, 5, [(SEED, 3), (SEED, 4), (SeedConfig(9), 3)], 2)
    expected = [batch_indices(23, 5, SEED, 4), batch_indices(23, 5, SEED, 5), batch_indices(23, 5, SeedConfig(9), 4)]
    assert apart[1].tolist() == np.concatenate(expected).tolist()


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="batch=9: more than the 8"):
        batch_indices(8, 9, SEED, 0)


def test_tensors_share_the_arrays_and_classes_become_one_hot() -> None:
    made = task(NETS["mlp-tanh"])
    tensors = Data(made)
    assert tensors.train.inputs.data_ptr() == made.train.inputs.ctypes.data
    assert tensors.train.targets.argmax(1).tolist() == made.train.targets.tolist()
    assert torch.equal(tensors.train.targets.sum(1), torch.ones(len(made.train)))


def test_an_autoencoders_targets_are_its_inputs() -> None:
    part = data(NETS["autoencoder"]).train
    assert part.targets is part.inputs
    head = part.head(3)
    assert head.targets is head.inputs
    assert head.expected.shape == (3, 12)


def test_read_only_arrays_are_wrapped_without_a_warning() -> None:
    made = task(NETS["autoencoder"])
    made.train.inputs.setflags(write=False)
    assert Data(made).train.inputs.shape == (60, 12)


def test_the_table_holds_inputs_ones_and_targets() -> None:
    tensors = data(NETS["mlp-tanh"])
    assert tensors.table.shape == (60, 7 + 1 + 3)
    assert torch.equal(tensors.table[:, :7], tensors.train.inputs)
    assert torch.equal(tensors.table[:, 7], torch.ones(60, dtype=torch.float64))
    assert torch.equal(tensors.table[:, 8:], tensors.train.targets)
    assert data(NETS["autoencoder"]).table.shape == (60, 12 + 1)
