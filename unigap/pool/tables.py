"""Convert records to Parquet tables and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unigap.pool.schemas import JUDGMENTS, PROMPTS, candidate_schema, shard_schema
from unigap.records import Candidate, DrawingFormat, Judgment, Prompt


def prompt_table(prompts: Sequence[Prompt]) -> pa.Table:
    """Convert prompts to a table, in the order given.

    Raises:
        ValueError: An id is empty or duplicated, or a field is not text that can be stored.
    """
    _refuse_duplicates("prompt", [prompt.id for prompt in prompts])
    for prompt in prompts:
        _check_prompt(prompt)
    return pa.table(_prompt_columns(prompts), schema=PROMPTS)


def shard_table(
    candidates: Sequence[Candidate],
    judgments: Iterable[Judgment],
    format: DrawingFormat | None = None,
    latents: str = "",
) -> pa.Table:
    """Convert candidates and their judgments to one table with a row for each candidate.

    Args:
        candidates: The candidates.
        judgments: Their judgments.
        format: Format of the pool's drawings.
        latents: Name of the file that holds the latents, in this order, if drawings are latents.

    Raises:
        ValueError: A record is duplicated, a number is not finite or out of range, or a judgment names no candidate in
            ``candidates``.
    """
    verdicts = _by_candidate(candidates, judgments)
    for candidate in candidates:
        _check_prompt(candidate.prompt)
        _check_numbers(candidate)
    columns = {
        **_prompt_columns([candidate.prompt for candidate in candidates]),
        "round": [int(candidate.round) for candidate in candidates],
        "index": [int(candidate.index) for candidate in candidates],
        "seed": [int(candidate.seed) for candidate in candidates],
        "logp": [None if candidate.logp is None else float(candidate.logp) for candidate in candidates],
        "judgments": [[_judgment_row(given[judge]) for judge in sorted(given)] for given in verdicts.values()],
    }
    if format and format.is_latent:
        columns |= {"latents": [latents] * len(candidates), "row": range(len(candidates))}
    else:
        codes = [_checked_codes(candidate, format) for candidate in candidates]
        offsets = np.cumsum([0, *map(len, codes)], dtype=np.int32)
        columns["codes"] = pa.ListArray.from_arrays(offsets, np.concatenate([np.empty(0, np.int32), *codes]))
    behaviour = _behaviour_columns(candidates)
    return pa.table(columns | behaviour, schema=shard_schema(format, bool(behaviour)))


def latent_rows(candidates: Sequence[Candidate], format: DrawingFormat) -> np.ndarray:
    """Return the latents of candidates, float16 (B, ...).

    Raises:
        ValueError: Latents have another shape, or are not finite.
    """
    rows = [format.check(candidate.id, np.asarray(candidate.drawing)) for candidate in candidates]
    return np.stack(rows) if rows else np.empty((0, *format.shape), format.dtype)


def merge_shards(
    shards: Sequence[pa.Table], format: DrawingFormat | None = None, behaviour: bool = False
) -> tuple[pa.Table, pa.Table]:
    """Merge shards into a table of candidates and a table of judgments.

    Both are sorted by prompt id and index (judgments also by judge), so they do not depend on ranks and shards.
    """
    # shards of a round begun by an earlier version have no column for the mass
    rows = pa.concat_tables([shard_schema(format, behaviour).empty_table(), *shards], promote_options="default")
    rows = rows.sort_by([("prompt_id", "ascending"), ("index", "ascending")]).combine_chunks()
    flat = pc.list_flatten(rows["judgments"])
    judgments = pa.table([pc.struct_field(flat, name) for name in JUDGMENTS.names], schema=JUDGMENTS)
    return rows.select(candidate_schema(format, behaviour).names), judgments


def number_table(numbers: Mapping[str, float], value: str, noun: str) -> pa.Table:
    """Convert numbers by candidate id to a table, sorted by id.

    Args:
        numbers: Number by candidate id.
        value: Name of the column of numbers.
        noun: Name of a number in messages.

    Raises:
        ValueError: A number is not finite.
    """
    for name, number in numbers.items():
        _check_text("candidate id", name)
        if not math.isfinite(number):
            raise ValueError(f"{noun} of candidate {name!r} is {number}; it must be finite")
    names = sorted(numbers)
    return pa.table([names, [float(numbers[name]) for name in names]], schema=number_schema(value))


def number_schema(value: str) -> pa.Schema:
    """Return the columns of a table of numbers by candidate id."""
    return pa.schema([("candidate_id", pa.string()), (value, pa.float64())])


def prompts_of(table: pa.Table) -> list[Prompt]:
    """Return the prompts of a table, in its order; rows with the same prompt share one object."""
    seen: dict[tuple[str, ...], Prompt] = {}
    rows = zip(*(table[name].to_pylist() for name in PROMPTS.names), strict=True)
    return [seen.setdefault(row, Prompt(*row)) for row in rows]


def judgments_of(table: pa.Table) -> list[Judgment]:
    """Return the judgments of a table, in its order."""
    if "mass" not in table.column_names:  # written by an earlier version
        table = table.append_column("mass", pa.nulls(len(table), pa.float32()))
    return [Judgment(*row) for row in zip(*(table[name].to_pylist() for name in JUDGMENTS.names), strict=True)]


def _behaviour_columns(candidates: Sequence[Candidate]) -> dict[str, pa.Array]:
    """Return the columns ``BEHAVIOUR`` of a shard; none if its candidates have no behaviour log-likelihood."""
    tokens = [candidate.behaviour_M for candidate in candidates if candidate.behaviour_M is not None]
    if not tokens:
        return {}
    if len(tokens) != len(candidates):
        raise ValueError("only some candidates of a shard have a behaviour log-likelihood; give all of them one")
    for candidate, token_M in zip(candidates, tokens, strict=True):
        if len(token_M) != len(candidate.drawing) or not np.isfinite(token_M).all():
            raise ValueError(f"behaviour_M of candidate {candidate.id!r} must be one finite number for each token")
    offsets = np.cumsum([0, *map(len, tokens)], dtype=np.int32)
    lists = pa.ListArray.from_arrays(offsets, np.concatenate(tokens).astype(np.float32))
    return {"behaviour": [float(token_M.sum(dtype=np.float64)) for token_M in tokens], "behaviour_tokens": lists}


def _judgment_row(judgment: Judgment) -> dict[str, str | float | None]:
    names = (judgment.candidate_id, judgment.judge, float(judgment.logit), judgment.mass)
    return dict(zip(JUDGMENTS.names, names, strict=True))


def _prompt_columns(prompts: Sequence[Prompt]) -> dict[str, list[str]]:
    fields = {"prompt_id": "id"}
    return {name: [getattr(prompt, fields.get(name, name)) for prompt in prompts] for name in PROMPTS.names}


def _refuse_duplicates(noun: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{noun} {name!r} comes twice; give each {noun} once")
        seen.add(name)


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate, which is not text: {text[:80]!r}; replace it") from None


def _check_prompt(prompt: Prompt) -> None:
    _check_text("prompt id", prompt.id)
    if not prompt.id:
        raise ValueError(f"a prompt has an empty id (text {prompt.text[:80]!r}); give it one")
    for name in PROMPTS.names[1:]:
        _check_text(f"{name} of prompt {prompt.id!r}", getattr(prompt, name))


def _check_judgment(judgment: Judgment) -> None:
    _check_text("judge name", judgment.judge)
    if not math.isfinite(judgment.logit):
        raise ValueError(
            f"logit of {judgment.judge!r} for candidate {judgment.candidate_id!r} is {judgment.logit}; "
            "it must be finite"
        )


def _by_candidate(candidates: Sequence[Candidate], judgments: Iterable[Judgment]) -> dict[str, dict[str, Judgment]]:
    _refuse_duplicates("candidate", [candidate.id for candidate in candidates])
    verdicts: dict[str, dict[str, Judgment]] = {candidate.id: {} for candidate in candidates}
    for judgment in judgments:
        _check_judgment(judgment)
        if judgment.candidate_id not in verdicts:
            raise ValueError(
                f"judgment by {judgment.judge!r} names candidate {judgment.candidate_id!r}, which is not in this "
                "shard; write a candidate together with its judgments"
            )
        if judgment.judge in verdicts[judgment.candidate_id]:
            raise ValueError(f"candidate {judgment.candidate_id!r} has two judgments by {judgment.judge!r}; keep one")
        verdicts[judgment.candidate_id][judgment.judge] = judgment
    return verdicts


def _check_numbers(candidate: Candidate) -> None:
    if candidate.logp is not None and not math.isfinite(candidate.logp):
        raise ValueError(f"logp of candidate {candidate.id!r} is {candidate.logp}; it must be finite")
    if candidate.index < 0:
        raise ValueError(f"index of candidate {candidate.id!r} must be >= 0, got {candidate.index}")
    if not -(2**63) <= candidate.seed < 2**63:
        raise ValueError(f"seed of candidate {candidate.id!r} must fit 64 signed bits, got {candidate.seed}")


def _checked_codes(candidate: Candidate, format: DrawingFormat | None) -> np.ndarray:
    codes = np.asarray(candidate.drawing)
    if format:
        codes = format.check(candidate.id, codes).ravel()
    if codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(
            f"codes of candidate {candidate.id!r} must be integers of shape (M,), got {codes.dtype} {codes.shape}"
        )
    if codes.size and (codes.min() < 0 or codes.max() >= 2**31):
        raise ValueError(f"codes of candidate {candidate.id!r} must be in [0, 2**31), got {codes.min()}..{codes.max()}")
    return codes.astype(np.int32)
