"""As many threads in a worker as in the step it works for: the number decides in which order floats are added up.

Does not live here: results that do not depend on it (``segments.threads``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Threads:
    """Threads of torch, and of the libraries that multiply NumPy's matrices."""

    torch: int
    blas: int

    @classmethod
    def here(cls) -> Threads:
        """Those of this process."""
        import torch

        return cls(torch.get_num_threads(), max((one["num_threads"] for one in _blas().info()), default=1))

    @contextmanager
    def used(self) -> Iterator[None]:
        """Inside, this process uses so many."""
        import torch

        before = torch.get_num_threads()
        # Some libraries have more threads than torch without asking it, and some only fewer.
        torch.set_num_threads(self.torch)
        try:
            with _blas().limit(limits=self.blas):
                yield
        finally:
            torch.set_num_threads(before)


def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")
