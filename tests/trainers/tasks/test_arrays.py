"""Arrays in files: the same names, shapes and values whatever the format, and every odd file named."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainers.tasks import TaskError
from trainers.tasks.arrays import headers


def write(path, columns):
    """Write a table of columns; 2-D arrays become lists."""
    arrays = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), value.shape[1])
        if isinstance(value, np.ndarray) and value.ndim == 2
        else pa.array(value)
        for name, value in columns.items()
    }
    table = pa.table(arrays)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=3)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".arrow"])
@pytest.mark.parametrize("wide", [True, False])
def test_a_file_of_any_format_gives_the_same_arrays(tmp_path, suffix, wide):
    rng = np.random.default_rng(0)
    content = {"inputs": rng.random((7, 4)), "targets": rng.random((7, 2)) if wide else np.arange(7)}
    path = tmp_path / f"own{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, **content)
    else:
        write(path, content)
    arrays = headers("data", path)
    assert arrays.shapes == {"inputs": ((7, 4), "f"), "targets": ((7, 2), "f") if wide else ((7,), "i")}
    for name, expected in content.items():
        np.testing.assert_array_equal(arrays.read(name), expected)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_columns_of_numbers_are_the_inputs_in_their_order(tmp_path, suffix):
    columns = {"b": [1.5, 2.5], "part": ["train", "test"], "a": [1, 2], "targets": [0, 1]}
    arrays = headers("data", write(tmp_path / f"own{suffix}", columns))
    assert arrays.shapes == {"inputs": ((2, 2), "f"), "targets": ((2,), "i"), "part": ((2,), "U")}
    np.testing.assert_array_equal(arrays.read("inputs"), [[1.5, 1], [2.5, 2]])
    assert arrays.read("part").tolist() == ["train", "test"]


def test_only_the_header_of_an_archive_is_read(tmp_path):
    np.savez(tmp_path / "own.npz", inputs=np.zeros((2, 3)), targets=np.array([{}, {}], dtype=object))
    arrays = headers("data", tmp_path / "own.npz")
    assert arrays.shapes["targets"] == ((2,), "O")  # objects are seen, never read
    with pytest.raises(TaskError, match=r"no \.npz file of numbers"):
        arrays.read("targets")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"inputs": [[1.0, 2.0], [3.0]]}, "lists with empty places or of several lengths"),
        ({"inputs": [[1.0, None], [3.0, 4.0]]}, "lists with empty places"),
        ({"inputs": [1.0, None]}, "column inputs has 1 empty rows"),
        ({"inputs": [b"a", b"b"]}, "column inputs is binary, expected numbers"),
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_odd_columns_are_named(tmp_path, suffix, columns, message):
    path = write(tmp_path / f"own{suffix}", columns)
    with pytest.raises(TaskError, match=message) as caught:
        headers("data", path).read("inputs")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".arrow"])
@pytest.mark.parametrize("content", [b"", b"something else altogether", bytes(300)])
def test_files_of_another_kind_are_refused_in_one_line(tmp_path, suffix, content):
    (tmp_path / f"own{suffix}").write_bytes(content)
    with pytest.raises(TaskError, match=rf"own\{suffix}: no \{suffix} file") as caught:
        headers("data", tmp_path / f"own{suffix}")
    assert "\n" not in str(caught.value)


def test_missing_files_and_unknown_kinds_are_named(tmp_path):
    with pytest.raises(TaskError, match="no such file"):
        headers("data", tmp_path / "own.npz")
    with pytest.raises(TaskError, match=r"must end in \.npz, \.parquet, \.arrow"):
        headers("data", tmp_path / "own.csv")
