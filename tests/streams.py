"""Streams of events as a worker meets them: in any order, repeated, one by one or several at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from services.chassis.db import Database
from services.chassis.reactions import handle, handle_together


def shuffled(data: st.DataObject, bodies: Sequence[bytes], *, repeated: int = 4) -> list[list[bytes]]:
    """The bodies in some order, up to `repeated` of them more than once, cut into what arrives together."""
    stream = data.draw(st.permutations([*bodies, *data.draw(st.lists(st.sampled_from(bodies), max_size=repeated))]))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream)))) | {0, len(stream)})
    return [list(stream[begin:end]) for begin, end in pairwise(cuts)]


def arrive(database: Database, service: str, batches: Sequence[Sequence[bytes]]) -> None:
    """What arrives alone is handled alone."""
    for batch in batches:
        if len(batch) == 1:
            handle(database, service, batch[0])
        else:
            handle_together(database, service, batch)
