"""The promises in order, and how each is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from unigap.models.base import UnifiedModel, evaluating
from unigap.testing import generation, likelihood, training, understanding
from unigap.testing.subject import QUESTIONS, TEXTS, Broken, Subject

Check = Callable[[Subject], None]
Applies = Callable[[Subject], bool]


def _always(subject: Subject) -> bool:
    return True


def _exact(subject: Subject) -> bool:
    return subject.model.exact_likelihood


def _exact_codes(subject: Subject) -> bool:
    return _exact(subject) and not subject.drawings_R.is_floating_point()


def _estimated(subject: Subject) -> bool:
    return not subject.model.exact_likelihood


PROMISES: dict[Check, Applies] = {
    generation.prompts_are_padded_left: _always,
    generation.empty_prompts_are_refused: _always,
    generation.samples_have_their_shapes: _always,
    generation.seeds_decide: _always,
    generation.batches_do_not_matter: _always,
    generation.sampling_leaves_the_model_alone: _always,
    generation.guidance_is_sampled: _always,
    generation.pixels_have_their_range: _always,
    generation.decoding_depends_on_the_drawing_alone: _always,
    generation.images_encode_to_drawings: generation.has_encode,
    generation.memory_is_estimated: _always,
    likelihood.logps_have_their_shape: _always,
    likelihood.sampling_equals_scoring: _exact,
    likelihood.recipes_are_scored: _exact,
    likelihood.recipes_are_refused: _estimated,
    likelihood.shares_equal_probabilities: _exact_codes,
    likelihood.estimates_are_functions_of_their_noise: _estimated,
    likelihood.padding_changes_nothing: _always,
    likelihood.shared_prompts_change_nothing: _always,
    likelihood.prompts_matter: _always,
    understanding.verdicts_have_their_shape: _always,
    understanding.questions_do_not_see_each_other: _always,
    understanding.the_judge_sees_the_image: _always,
    understanding.answers_have_their_shape: understanding.has_answers,
    training.only_the_trunk_trains: _always,
    training.a_step_moves_what_trains: _always,
    training.digests_name_weights_and_pixels: _always,
    training.likelihoods_are_deterministic_in_training: _always,
    training.a_saved_model_is_the_same: training.can_be_reloaded,
}
"""Every check of the protocol, with the condition under which it applies."""


@dataclass(frozen=True)
class Outcome:
    """Result of one check.

    Attributes:
        name: Name of the check, e.g. ``"seeds_decide"``.
        promise: What the protocol promises, one sentence.
        holds: Whether it holds; ``None`` if the check does not apply to this model.
        found: What was found instead; empty if the promise holds.
    """

    name: str
    promise: str
    holds: bool | None
    found: str = ""


def outcomes(subject: Subject) -> Iterator[Outcome]:
    """Check every promise in turn, with the model in eval mode, and leave the model as it was.

    A check that raises counts as broken, and the others still run.
    """
    with evaluating(subject.model):
        for check, applies in PROMISES.items():
            yield _outcome(check, applies, subject)


def _outcome(check: Check, applies: Applies, subject: Subject) -> Outcome:
    name, promise = check.__name__, (check.__doc__ or "").strip()
    try:
        if not applies(subject):
            return Outcome(name, promise, None)
        check(subject)
    except Broken as broken:
        return Outcome(name, promise, False, str(broken))
    except Exception as error:  # a plug-in can raise anything
        first = str(error).strip().splitlines() or [""]
        return Outcome(name, promise, False, f"{type(error).__name__}: {first[0][:200]}")
    return Outcome(name, promise, True)


def check_model(
    model: UnifiedModel,
    texts: Sequence[str] = TEXTS,
    questions: Sequence[str] = QUESTIONS,
    candidates: int = 2,
    reload: Callable[[Path], UnifiedModel] | None = None,
) -> None:
    """Check that a model keeps the promises of the protocol, e.g. in a test of one's own.

    Args:
        model: The model, with random or trained weights; it is left as it was.
        texts: Two or more prompts that it understands, the first shorter than the second.
        questions: Two or more yes-no questions.
        candidates: Images sampled for each prompt, >= 2.
        reload: Loads the model from a folder that its ``save`` wrote; ``None`` leaves saving unchecked.

    Raises:
        AssertionError: A promise does not hold; the message has one line for each.
    """
    broken = [one for one in outcomes(Subject(model, texts, questions, candidates, reload)) if one.holds is False]
    lines = [f"{one.name}: {one.found}. Promised: {one.promise}" for one in broken]
    if lines:
        raise AssertionError(
            "\n".join([f"{type(model).__name__} breaks {len(lines)} promises of the protocol", *lines])
        )
