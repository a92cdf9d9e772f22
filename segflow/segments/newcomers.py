"""Users who gained enough history after a snapshot, as its clustering looks at them: by the snapshot's own fusion.

What does not live here: how views are made (`representation`), and the segments of the snapshot's users (`snapshots.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segflow.arrow import vector_column
from segflow.config import UserEmbeddingConfig, View
from segflow.errors import UserError
from segflow.representation.views import UserViews, fuse_views

# Far above what the order of sums can change in a float32, far below any distance between two users.
_SAME = 1e-4


def newcomers(before: UserViews, now: UserViews) -> NDArray[np.intp]:
    """Rows of `now`: users with enough history, who at the snapshot `before` had not enough or were unknown."""
    known = np.asarray(before.user_ids, object)[before.enough_history]
    return np.flatnonzero(now.enough_history & ~np.isin(np.asarray(now.user_ids, object), known))


def newcomer_embeddings(
    before: UserViews,
    fused: NDArray[np.float32],
    now: UserViews,
    rows: NDArray[np.intp],
    chosen: Sequence[View],
    config: UserEmbeddingConfig,
) -> pa.Table:
    """user_id, enough_history and fused of the users at `rows` of `now`, in the space that `before` was fused into.

    The fusion is fitted again on the users of the snapshot, which gives the same one. fused: (U, D) what the snapshot's
    `user_embeddings` hold. Raises UserError when they were fused otherwise.
    """
    again = fuse_views(before, chosen, config)
    if again.matrix.shape != fused.shape or not np.allclose(again.matrix, fused, atol=_SAME):
        raise UserError(
            "user_embeddings: were not made of what user_views of the week hold now; materialize user_embeddings of that "
            "week and what follows from it again"
        )
    points = again.fusion.apply({str(name): now.views[name][rows] for name in chosen})
    users = pa.array([now.user_ids[row] for row in rows], pa.string())
    return pa.table({"user_id": users, "enough_history": np.ones(len(rows), bool), "fused": vector_column(points)})
