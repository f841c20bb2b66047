"""What sentences of the embedded world mean, worked out the slow and plain way, and random sentences to try it on."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Sequence

from hypothesis import strategies as st

from unigap.worlds.shapes.grammar import COLORS, MAX_OBJECTS, RELATIONS, SHAPES, SIZES, Description, Thing
from unigap.worlds.shapes.scenes import GRID, JITTER, KINDS, Placed


def meaning(description: Description) -> Hashable:
    """Equal for two descriptions exactly when they are true of the same scenes."""
    if description.relation in ("left of", "above"):
        return (*description.things, description.relation)
    if description.relation:
        return (*description.things[::-1], {"right of": "left of", "below": "above"}[description.relation])
    return frozenset(Counter(description.things).items())


def is_true(description: Description, scene: Sequence[Placed]) -> bool:
    """Whether a scene shows what is described: tries every way to name its objects."""
    wanted = description.things
    return len(wanted) == len(scene) and any(
        all(_is_a(thing, placed.thing) for thing, placed in zip(wanted, order, strict=True))
        and (not description.relation or _lies(description.relation, *order))
        for order in itertools.permutations(scene)
    )


def _is_a(kind: Thing, thing: Thing) -> bool:
    return all(
        not asked or asked == seen
        for asked, seen in ((kind.shape, thing.shape), (kind.color, thing.color), (kind.size, thing.size))
    )


def _lies(relation: str, a: Placed, b: Placed) -> bool:
    right, down = b.col - a.col, b.row - a.row
    lead = {"left of": right, "right of": -right, "above": down, "below": -down}[relation]
    return lead > (abs(down) if relation.endswith("of") else abs(right))


THINGS = st.builds(
    Thing, st.sampled_from(SHAPES), color=st.sampled_from(("", *COLORS)), size=st.sampled_from(("", *SIZES))
)
GROUPS = st.lists(st.tuples(st.integers(1, MAX_OBJECTS), THINGS), min_size=1, max_size=MAX_OBJECTS).filter(
    lambda groups: sum(count for count, _ in groups) <= MAX_OBJECTS
)
PLAIN = GROUPS.map(lambda groups: Description(tuple(groups)))
SPATIAL = st.builds(
    lambda a, b, relation: Description(((1, a), (1, b)), relation), THINGS, THINGS, st.sampled_from(list(RELATIONS))
)
DESCRIPTIONS = st.one_of(PLAIN, SPATIAL)
"""Every sentence the grammar can say."""

SCENES = st.lists(
    st.builds(
        Placed,
        st.sampled_from(KINDS),
        *[st.integers(0, GRID - 1)] * 2,
        *[st.integers(0, JITTER - 1)] * 2,
    ),
    min_size=1,
    max_size=MAX_OBJECTS,
    unique_by=lambda placed: (placed.row, placed.col),
).map(tuple)
"""Every scene of one to six objects."""
