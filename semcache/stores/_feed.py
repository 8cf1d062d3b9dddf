"""Parts of the change feed that stores have in common.

Stores with a clock of their own (memory, SQLite) number every put, removal and wrong pair from one sequence, so that
the feed is a walk along it. A cursor holds the ``position`` of that walk and the number ``since`` at which it began
at the beginning: a removal before that needs no telling, so a long first walk is not thrown back because old removals
have been forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

from semcache.stores.base import Changes

HISTORY: Final = 100_000
"""How many numbers back removals are remembered. An older cursor starts again from the beginning."""

MAX_WRONG_PAIRS: Final = 10_000


def embedder_number(fingerprint: str | None) -> int:
    """63 bits that stand for an embedder; 0 for none."""
    return 0 if fingerprint is None else int(xxh3_64_intdigest(fingerprint.encode()) >> 1)


class Cursor(NamedTuple):
    """A place in the feed of a store with its own clock."""

    store_id: str
    position: int
    since: int

    def __str__(self) -> str:
        return f"{self.store_id}:{self.position}:{self.since}"

    @property
    def removals_from(self) -> int:
        """Removals after this number are still to be told."""
        return max(self.position, self.since)


def resume(text: str | None, *, store_id: str, now: int) -> tuple[Cursor, bool]:
    """Where to go on from the cursor ``text``, and whether that is the beginning although it was not asked for.

    Args:
        now: The last number that the store has given out.
    """
    parts = [] if text is None else text.split(":")
    if len(parts) == 3 and parts[0] == store_id and parts[1].isdecimal() and parts[2].isdecimal():
        cursor = Cursor(store_id, int(parts[1]), int(parts[2]))
        if cursor.position <= now and cursor.removals_from >= now - HISTORY:
            return cursor, False
    return Cursor(store_id, 0, now), text is not None


def page(
    added: Sequence[tuple[int, int, bytes]],
    *,
    removed: Iterable[int],
    wrong_pairs: Iterable[tuple[int, int]],
    cursor: str,
    more: bool,
    reset: bool,
    first: bool,
) -> Changes | None:
    """Build a page from ``(id, scope id, float16 bytes)``; ``None`` if it has nothing to say.

    The ``first`` page, asked for without a cursor, is never ``None``: it brings one.
    Vectors of another length than the first cannot be of the same embedder and are left out.
    """
    import numpy as np

    length = len(added[0][2]) if added else 0
    added = [one for one in added if len(one[2]) == length]
    gone, pairs = tuple(removed), tuple(wrong_pairs)
    if not (added or gone or pairs or more or reset or first):
        return None
    raw = np.frombuffer(b"".join(vector for _, _, vector in added), dtype="<f2")
    return Changes(
        ids=np.array([id for id, _, _ in added], dtype=np.int64),
        scope_ids=np.array([scope_id for _, scope_id, _ in added], dtype=np.int64),
        vectors=raw.reshape(len(added), -1 if added else 0).astype(np.float32),
        removed=gone,
        wrong_pairs=pairs,
        cursor=cursor,
        more=more,
        reset=reset,
    )
