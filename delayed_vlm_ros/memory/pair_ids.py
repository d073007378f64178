"""Where the ids of pairs come from."""

from __future__ import annotations

import itertools


class PairIds:
    """Growing numbers from 1; several memories may share one source."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __next__(self) -> int:
        return next(self._numbers)

    def continue_after(self, pair_id: int) -> None:
        """Give only larger ids from now on, so that none comes to name two pairs."""
        self._numbers = itertools.count(max(next(self._numbers), pair_id + 1))
