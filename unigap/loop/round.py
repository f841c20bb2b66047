"""One round of the pool: draw, judge, store. What a killed round already has is not drawn again."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from unigap.console.stop_signal import Stopped
from unigap.judges import Judge, at_once, judge_recipes
from unigap.judges.answer_mass import AnsweringJudge
from unigap.loop.allocation import Allocation, FixedCandidates, Tally, Wave
from unigap.loop.sampling import Drawings, codes_of, draw_candidates
from unigap.loop.selection import threshold_logit
from unigap.models.base import SamplingRecipe, UnifiedModel, evaluating
from unigap.pool import Pool
from unigap.pool.shards import Key, RoundWriter
from unigap.records import Candidate, Judgment, Prompt
from unigap.seeds import seed_of_part

SELECTS = "selects"
"""Key of a round's recipe: the judge that selects, where it answers after the round."""


@dataclass(frozen=True)
class RoundPlan:
    """How a round is drawn.

    Args:
        candidates: N, images drawn for each prompt; where an allocation shares them out, as many on average.
        sampling: Temperature, guidance and filters.
        images_per_batch: Most images drawn at once; bounds memory, and is the share of work a process takes at a time.
        seed: Part of every sampling seed; null follows the run's seed by the rule of what the plan is for.
    """

    candidates: int = 8
    sampling: SamplingRecipe = field(default_factory=SamplingRecipe)
    images_per_batch: int = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("candidates", "images_per_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")

    def seeded(self, part: str) -> RoundPlan:
        """Return the plan with its seed as a number.

        Args:
            part: What the plan is for, a name in `unigap.seeds.PARTS`; decides the seed where none was given.
        """
        return dataclasses.replace(self, seed=seed_of_part(part, self.seed))

    @property
    def sampling_seed(self) -> int:
        """The seed as a number; that of the pool where neither a number nor another part was named."""
        return seed_of_part("pool", self.seed)

    def recipe(self, model: UnifiedModel, judges: Sequence[Judge]) -> dict[str, Any]:
        """Everything a round drawn by ``model`` and told apart by ``judges`` depends on, as the pool stores it."""
        depends = dataclasses.asdict(self) | {"seed": self.sampling_seed, "judges": judge_recipes(at_once(judges))}
        if judges[0].asked_later:  # its verdicts come later, so it is not among the judges of the round
            depends[SELECTS] = judges[0].name
        del depends["images_per_batch"]
        return depends | {"weights": model.weights_digest()}


@dataclass(frozen=True)
class Ranks:
    """Who shares the work: this process, how many there are, and how they tell each other.

    Attributes:
        rank: Number of this process.
        world: How many there are.
        gather: Gives every process what each of them said, in order of rank; waits until all have spoken.
    """

    rank: int = 0
    world: int = 1
    gather: Callable[[str], list[str]] = lambda said: [said]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work of which no process goes on before all are done; what fails on one fails on all, with one message.

        Raises:
            ValueError: On every process, when one of several failed.
        """
        try:
            yield
        except (Exception, Stopped) as error:
            if self.world > 1:
                self.gather(f"process {self.rank}: {error}")
            raise
        failed = next(filter(None, self.gather("")), None)
        if failed:
            raise ValueError(failed)


def judge_drawings(model: UnifiedModel, drawings: Drawings, judges: Iterable[Judge]) -> list[Judgment]:
    """What every judge that speaks at once says of every drawing; one that is named twice speaks once."""
    said = []
    for name, judge in {judge.name: judge for judge in at_once(judges)}.items():
        logits, masses = _answers(judge, model, drawings)
        rows = zip(drawings.candidates, logits, masses, strict=True)
        said += [Judgment(candidate.id, name, logit, mass) for candidate, logit, mass in rows]
    return said


def _answers(judge: Judge, model: UnifiedModel, drawings: Drawings) -> tuple[list[float], list[float | None]]:
    """Log-odds of yes and, of a judge that answers in words, the probability of yes or no."""
    if isinstance(judge, AnsweringJudge):
        answers = judge.answers(model, drawings.candidates, drawings.pixels_BCHW)
        return answers.logit.tolist(), answers.mass.tolist()
    logits = judge.logits(model, drawings.candidates, drawings.pixels_BCHW).tolist()
    return logits, [None] * len(logits)


def collect_round(
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    judges: Sequence[Judge],
    pool: Pool,
    round: int,
    plan: RoundPlan,
    ranks: Ranks | None = None,
    progress: Callable[[int], None] = lambda images: None,
    allocation: Allocation | None = None,
    threshold: float = 0.5,
) -> None:
    """Draws and judges candidates for ``prompts`` and commits them to the pool as ``round``.

    A round the pool already holds, drawn by the same weights for the same prompts in the same way, is left as it is;
    one that was killed half way continues from the shards it has. Each rank draws every world-th batch; the result does
    not depend on how many ranks there are, nor on kills, to the last bit.

    Args:
        model: Who draws.
        prompts: What is asked for.
        judges: The judge that selects, and others whose verdicts are stored beside it for evaluation. Who is asked
            later says nothing yet.
        pool: Where it is kept.
        round: Number of the round.
        plan: How it is drawn.
        ranks: Which share of the work is this process's; ``None`` is all of it.
        progress: Called with the number of images drawn and judged since the last call.
        allocation: Which prompts get how many images; ``None`` gives each the plan's.
        threshold: Least probability of yes that counts as accepted, for an allocation that asks.

    Raises:
        ValueError: When the pool holds the round, but drawn by other weights, in another way or for other prompts;
            when the allocation asks a judge who answers later; on every rank, when one of several failed.
    """
    ranks, allocation = ranks or Ranks(), allocation or FixedCandidates()
    if judges[0].asked_later and not isinstance(allocation, FixedCandidates):
        raise ValueError(
            f"{type(allocation).__name__} asks the judge while it draws, and {judges[0].name!r} answers later; "
            "leave the allocation out"
        )
    recipe = plan.recipe(model, judges) | allocation.recipe(threshold)
    if round in pool.rounds:
        _check_same_round(pool, round, recipe, prompts)
        return
    # what cannot be shared out shows before the round is begun
    wave = allocation.next_wave([Tally()] * len(prompts), plan.candidates)
    with ranks.together():
        writer = pool.writer(round, recipe, lead=ranks.rank == 0)
        present = at_once(judges)
        hand = _Hand(model, present, plan, round, ranks, writer, progress, writer.verdicts(present[0].name))
    _draw_waves(hand, prompts, wave, allocation, threshold_logit(threshold))
    with ranks.together():
        if ranks.rank == 0:
            writer.commit(prompts)


def _check_same_round(pool: Pool, round: int, recipe: Mapping[str, Any], prompts: Sequence[Prompt]) -> None:
    """Makes sure that a round the pool holds is the one that would be drawn."""
    stored = pool.recipe(round)
    # rounds drawn before the key was recorded lack it
    if stored != {name: value for name, value in recipe.items() if name != SELECTS or name in stored}:
        raise ValueError(
            f"pool {pool.folder}: round {round} was drawn by other weights or another recipe; use a new pool folder"
        )
    if pool.prompts(upto=round)[round] != list(prompts):
        raise ValueError(
            f"pool {pool.folder}: round {round} was drawn for other prompts; use them or a new pool folder"
        )


def _draw_waves(hand: _Hand, prompts: Sequence[Prompt], wave: Wave | None, allocation: Allocation, bar: float) -> None:
    """Draws wave after wave; from the log-odds ``bar`` on a candidate is accepted."""
    tallies = [Tally()] * len(prompts)
    while wave:
        with hand.ranks.together():
            mine = hand.draw(prompts, wave)
        # what the others drew is heard from them: a shared folder may show their shards late
        for place, logits in itertools.chain.from_iterable(map(json.loads, hand.ranks.gather(json.dumps(mine)))):
            tallies[place] = tallies[place].after(logits, bar)
        wave = allocation.next_wave(tallies, hand.plan.candidates)


@dataclass(frozen=True)
class _Hand:
    """One process at work on a round; ``said`` are the first judge's log-odds of what is safe in shards."""

    model: UnifiedModel
    judges: Sequence[Judge]
    plan: RoundPlan
    round: int
    ranks: Ranks
    writer: RoundWriter
    progress: Callable[[int], None]
    said: dict[Key, float]

    def draw(self, prompts: Sequence[Prompt], wave: Wave) -> list[tuple[int, list[float]]]:
        """Draws this process's share of a wave, as far as it is not there; places of its prompts and their log-odds."""
        size = max(1, self.plan.images_per_batch // wave.images)
        # whole batches are shared out and skipped: what is computed together never depends on ranks or kills
        batches = [wave.prompts[start : start + size] for start in range(0, len(wave.prompts), size)]
        mine = batches[self.ranks.rank :: self.ranks.world]
        for batch in mine:
            self._draw_batch([prompts[i] for i in batch if (prompts[i].id, wave.first) not in self.said], wave)
        indices = range(wave.first, wave.first + wave.images)
        return [(i, [self.said[prompts[i].id, index] for index in indices]) for batch in mine for i in batch]

    def _draw_batch(self, prompts: Sequence[Prompt], wave: Wave) -> None:
        plan = self.plan
        for drawings in draw_candidates(
            self.model,
            prompts,
            wave.images,
            self.round,
            plan.sampling_seed,
            plan.sampling,
            plan.images_per_batch,
            wave.first,
        ):
            judgments = judge_drawings(self.model, drawings, self.judges)
            self.writer.write(drawings.candidates, judgments, self.ranks.rank)
            keys = {candidate.id: (candidate.prompt.id, candidate.index) for candidate in drawings.candidates}
            first = self.judges[0].name
            self.said.update({keys[j.candidate_id]: j.logit for j in judgments if j.judge == first})
            self.progress(len(drawings.candidates))


@torch.no_grad()
def image_likelihoods(model: UnifiedModel, candidates: Sequence[Candidate], batch_size: int = 256) -> dict[str, float]:
    """Teacher-forced log-likelihood of each candidate, summed over its tokens, in nats, by candidate id."""
    found: dict[str, float] = {}
    with evaluating(model):
        for start in range(0, len(candidates), batch_size):
            batch = candidates[start : start + batch_size]
            prompt = model.encode_prompt([c.prompt.text for c in batch])
            logp_B = model.image_logps(prompt, codes_of(batch).to(prompt.ids_BL.device)).double().sum(-1)
            found |= dict(zip([c.id for c in batch], logp_B.tolist(), strict=True))
    return found
