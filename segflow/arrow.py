"""Matrices as Arrow list columns and back, without a copy per row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def vector_column(matrix: npt.NDArray[np.floating]) -> pa.ListArray:
    """(n, d) floats as n lists of d float32."""
    rows, width = matrix.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * width)
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(matrix, np.float32).ravel()))


def matrix(column: pa.ChunkedArray | pa.ListArray) -> npt.NDArray[np.float32]:
    """The (n, d) float32 matrix of a list column whose lists all have d entries.

    Raises ValueError when they do not.
    """
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(lists) == 0:
        return np.zeros((0, 0), np.float32)
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    if (lengths != lengths[0]).any():
        raise ValueError("the lists differ in length")
    return flat.reshape(len(lists), int(lengths[0]))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with the columns of `schema` in their order and types; a column that it lacks is all null."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, names=schema.names)
