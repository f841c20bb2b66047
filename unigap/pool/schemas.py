"""Columns of the tables of a pool."""

from __future__ import annotations

import pyarrow as pa

from unigap.records import DrawingFormat

PROMPTS = pa.schema([(name, pa.string()) for name in ("prompt_id", "text", "category", "difficulty", "split", "truth")])
JUDGMENTS = pa.schema(
    [("candidate_id", pa.string()), ("judge", pa.string()), ("logit", pa.float64()), ("mass", pa.float32())]
)
BEHAVIOUR = pa.schema([("behaviour", pa.float64()), ("behaviour_tokens", pa.list_(pa.float32()))])
"""Log-likelihood under the sampling recipe, of the image and of each token; rounds have it if the objective asks."""
_CODES = [("codes", pa.list_(pa.int32()))]
_PLACE = [("latents", pa.string()), ("row", pa.int64())]


def candidate_schema(format: DrawingFormat | None = None, behaviour: bool = False) -> pa.Schema:
    """Return the columns of a round's candidates; latents are in a file of their own, in the order of the rows."""
    usual = _candidates([] if format and format.is_latent else _CODES)
    return with_behaviour(usual) if behaviour else usual


def with_behaviour(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a table of candidates together with ``BEHAVIOUR``."""
    return pa.schema([*schema, *BEHAVIOUR])


def shard_schema(format: DrawingFormat | None = None, behaviour: bool = False) -> pa.Schema:
    """Return the columns of a shard: a candidate and its judgments, so that both become durable at the same time.

    Latents are in a file of their own for each shard; its name and the row in it are in the table.
    """
    usual = _with_judgments(_candidates(_PLACE if format and format.is_latent else _CODES), JUDGMENTS)
    return with_behaviour(usual) if behaviour else usual


def _candidates(drawing: list[tuple[str, pa.DataType]]) -> pa.Schema:
    numbers = [("round", pa.int64()), ("index", pa.int64()), ("seed", pa.int64())]
    return pa.schema([*PROMPTS, *numbers, *drawing, ("logp", pa.float64())])


def _with_judgments(candidates: pa.Schema, judgments: pa.Schema) -> pa.Schema:
    return pa.schema([*candidates, ("judgments", pa.list_(pa.struct(judgments)))])


CANDIDATES, SHARD = candidate_schema(), shard_schema()
_MASSLESS = JUDGMENTS.remove(JUDGMENTS.get_field_index("mass"))
EARLIER = ((JUDGMENTS, _MASSLESS), (SHARD, _with_judgments(CANDIDATES, _MASSLESS)))
"""Columns of tables written by earlier versions, which did not store the mass."""
