import numpy as np
import pytest
import torch

from tests.trainers.cases import NETS, data, task
from trainers import data as module
from trainers.config import SeedConfig, TaskInfo
from trainers.data import Data, Part, Pool, batch_indices, batch_span
from trainers.tasks import Split, Task

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
    pool = Pool(Part(torch.zeros(23, 1), torch.zeros(23, 1), None), 5)
    shared = pool.rows([(SEED, 3)] * 4, 2)
    assert [len(row) for row in shared] == [5, 5]
    apart = pool.rows([(SEED, 3), (SEED, 4), (SeedConfig(9), 3)], 2)
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
    assert tensors.train.table.shape == (60, 7 + 1 + 3)
    assert torch.equal(tensors.train.table[:, :7], tensors.train.inputs)
    assert torch.equal(tensors.train.table[:, 7], torch.ones(60, dtype=torch.float64))
    assert torch.equal(tensors.train.table[:, 8:], tensors.train.targets)
    assert data(NETS["autoencoder"]).train.table.shape == (60, 12 + 1)


def test_a_finite_task_has_one_pool_with_the_batches_of_all_updates() -> None:
    tensors = data(NETS["mlp-tanh"])
    pool = tensors.pool(SEED, 3, 5)
    other = tensors.pool(SeedConfig(9), 1000, 5)
    assert pool.part is tensors.train
    assert pool.part.table is tensors.train.table
    assert pool.key == other.key
    assert pool.until > 10**12
    starts = [(SEED, 3), (SEED, 11), (SeedConfig(9), 3)]
    spans = np.stack([batch_span(60, 5, seed, update, 30) for seed, update in starts], axis=1).reshape(30, -1)
    for rows, same in zip(pool.rows(starts, 30), torch.from_numpy(spans), strict=True):
        assert torch.equal(rows, same)


def online(examples: int = 23) -> Task:
    """Inputs [N, T = 3, 2] and one answer; those of the draws count from seed % 1000 on, as no other draw's do."""

    def draw(seed: int, count: int) -> Split:
        inputs = (seed % 1000) + np.arange(count * 6, dtype=np.float32).reshape(count, 3, 2) / 1000
        return Split(inputs, inputs[:, 2, :1].copy(), np.full(count, 2))

    info = TaskInfo("synthetic", "sequence", 2, 1, "squared", ("loss", "error"), steps=3)
    return Task(info, draw(0, examples), draw(1, 7), draw(2, 7), "synthetic", False, draw=draw)


def test_pools_of_an_online_task_follow_one_another_in_the_order_drawn() -> None:
    tensors = Data(online(), dtype="float64")
    seen = []
    for update in range(13):
        pool = tensors.pool(SEED, update, 5)
        number = update // 4  # 4 batches of 5, the last 3 examples of a pool are left out
        assert pool.until == 4 * (number + 1)
        rows = pool.rows([(SEED, update)], 1)[0]
        assert rows.tolist() == list(range(5 * (update % 4), 5 * (update % 4) + 5))
        inputs, steps = pool.part.arguments(rows)
        assert inputs.dtype == torch.float64
        assert steps.tolist() == [2] * 5
        seen.append(inputs)
    assert len(np.unique(torch.cat(seen).flatten(1).numpy(), axis=0)) == 13 * 5
    span = torch.stack(tensors.pool(SEED, 5, 5).rows([(SEED, 5)], 3))
    assert torch.equal(span, torch.arange(5, 20).view(3, 5))


def test_pools_are_the_same_after_a_restart_and_differ_between_seeds_and_batches_share_them() -> None:
    tensors, again = Data(online()), Data(online())
    for number in (5, 2, 0):  # in another order, as slots may stand anywhere
        expected = again.pool(SEED, 4 * number, 5)
        pool = tensors.pool(SEED, 4 * number + 3, 5)
        assert pool.key == expected.key
        assert torch.equal(pool.part.inputs, expected.part.inputs)
        assert tensors.pool(SEED, 2 * number, 10).part is pool.part
        assert tensors.pool(SeedConfig(3, replicate=1), 4 * number, 5).key != pool.key
    assert tensors.pool(SEED, 0, 5).part is tensors.pool(SEED, 1, 5).part
    assert torch.equal(tensors.train.inputs, again.train.inputs)


def test_slots_of_one_pool_share_a_batch_at_one_update_and_have_their_own_at_others() -> None:
    pool = Data(online()).pool(SEED, 0, 5)
    assert [rows.tolist() for rows in pool.rows([(SEED, 1)] * 3, 2)] == [[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
    apart = pool.rows([(SEED, 0), (SEED, 2)], 2)
    assert apart[1].tolist() == [5, 6, 7, 8, 9, 15, 16, 17, 18, 19]
    with pytest.raises(AssertionError):
        pool.rows([(SEED, 3)], 2)


def test_few_pools_are_kept_and_those_used_last_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = Data(online())
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    first = tensors.pool(SEED, 0, 5).part
    tensors.pool(SEED, 4, 5)
    assert tensors.pool(SEED, 0, 5).part is first
    second = tensors.pool(SEED, 8, 5).part
    assert tensors.pool(SEED, 0, 5).part is first
    assert tensors.pool(SEED, 8, 5).part is second
    redrawn = tensors.pool(SEED, 4, 5).part
    assert tensors.pool(SEED, 4, 5).part is redrawn
    assert tensors.pool(SEED, 0, 5).part is not first


def test_a_batch_larger_than_a_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="batch=24: more than the 23"):
        Data(online()).pool(SEED, 0, 24)


def test_pools_drawn_by_an_engine_serve_autograd_too() -> None:
    tensors = Data(online())
    with torch.inference_mode():
        tensors.pool(SEED, 0, 5)
    assert not tensors.pool(SEED, 0, 5).part.inputs.is_inference()


def test_sequences_as_tensors() -> None:
    classes = np.array([[-1, 2, 0], [1, -1, 2]])
    inputs = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    made = module.part(Split(inputs, classes), 3, torch.device("cpu"), torch.float64)
    assert made.targets.tolist() == [[[0, 0, 0], [0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 0], [0, 0, 1]]]
    assert made.expected.tolist() == classes.tolist()
    assert len(made.arguments()) == 1
    assert made.table.shape == (2, 6 + 1 + 9)
    assert made.table[1].tolist() == [6, 7, 8, 9, 10, 11, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    one = Data(online()).train
    assert one.table.shape == (23, 6 + 1 + 1)
    head = one.head(4)
    assert head.steps is not None
    assert [len(each) for each in (*head.arguments(), head.targets, head.steps)] == [4] * 4
    assert torch.equal(one.arguments(torch.tensor([3, 1]))[0], one.inputs[[3, 1]])
