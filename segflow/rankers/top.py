"""The best of many scores: exact, and ties always resolved the same way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch


def top_items(scores: npt.NDArray[np.float32], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The ``count`` best of (U, C) scores: (U, min(count, C)) candidate positions and their scores, best first.

    Equal scores keep candidate order. What is hidden has the score -inf, and comes out with it where nothing else is left.
    Raises ValueError on NaN, by which nothing can be ranked.
    """
    count, width = min(count, scores.shape[1]), scores.shape[1]
    block = torch.from_numpy(scores)
    # One more than asked for tells whether the last place is tied; torch takes NaN for greatest, so none can hide.
    values, places = torch.topk(block, min(count + 1, width))
    if values.isnan().any():
        raise ValueError("a score is NaN: the ranker that made it is broken")
    tied = values[:, count - 1] == values[:, count] if width > count else torch.zeros(len(block), dtype=torch.bool)
    places, order = torch.sort(places[:, :count], dim=1)
    values, order = torch.sort(values[:, :count].gather(1, order), dim=1, descending=True, stable=True)
    places = places.gather(1, order)
    if tied.any():
        places[tied] = torch.sort(block[tied], dim=1, descending=True, stable=True).indices[:, :count]
    return places.numpy(), values.numpy()
