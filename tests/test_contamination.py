"""Training prompts that are evaluated on: found whole and nearly, by the command and in all pairs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from small_runs import expect_error

from unigap.__main__ import main
from unigap.prompt_sets.contamination import find_overlaps, jaccard, repeats, shingles
from unigap.prompt_sets.loading import read_prompts
from unigap.prompt_sets.same_text import normalised
from unigap.records import Prompt

WORDS = ["a", "the", "red", "blue", "green", "small", "cat", "dog", "lamp", "on", "under", "near", "of", "two", "and"]


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(f"{number}", text) for number, text in enumerate(texts)]


@pytest.mark.parametrize("near", [0.3, 0.5, 0.7, 0.75, 0.8, 0.9, 1.0])
def test_the_index_finds_what_comparing_all_pairs_finds(near: float) -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(400)]
    train, held_out = prompts(*texts[:250]), prompts(*texts[250:])
    sets = [shingles(text) for text in texts[250:]]
    found = {overlap.train.id: overlap for overlap in find_overlaps(train, held_out, near)}
    for prompt in train:
        mine = shingles(normalised(prompt.text))
        scores = [jaccard(mine, other) for other in sets]
        if max(scores) >= near:
            assert found[prompt.id].similarity == max(scores)
            assert found[prompt.id].same == (prompt.text in {other.text for other in held_out})
        else:
            assert prompt.id not in found
    assert found


def test_word_order_counts_and_a_plural_hardly() -> None:
    held_out = prompts(
        "a small blue ring and a large black ring", "the prickly green cactus touched the smooth white wall"
    )
    swapped, plural, other = prompts(
        "a large blue ring and a small black ring",
        "The prickly green cactus touched the smooth, white walls.",
        "a ring",
    )
    (found,) = find_overlaps([swapped, plural, other], held_out)
    assert (found.train, found.held_out, found.same) == (plural, held_out[1], False)


def test_short_texts_and_other_scripts() -> None:
    assert find_overlaps(prompts("猫", "一只红色的猫"), prompts("狗", "一只红色的猫。"))[0].similarity == 1.0
    assert not find_overlaps(prompts("猫"), prompts("狗")) and not find_overlaps([], prompts("a"))
    assert find_overlaps(prompts("A CAT."), prompts("a cat"))[0].same


def test_repeats_are_later_ones() -> None:
    assert [prompt.id for prompt in repeats(prompts("a ring", "a cross", "A ring."))] == ["2"]


def test_audit_lists_and_drops(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.txt").write_text(
        "a red circle\na blue ring left of a small green cross\ntwo crosses\nA red circle.\nTWO crosses\n"
    )
    Path("eval.txt").write_text("A RED  circle\na blue ring left of a small green cross!\nthree squares\n")
    assert main(["prompts", "audit", "train.txt", "eval.txt", "--out", "clean.jsonl"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[:3]] == ["same", "1.00", "same"]
    assert printed[3] == (
        "5 training prompts, 3 held out: 2 the same, 1 nearly the same (>= 0.9), 2 repeated in training"
    )
    assert printed[4] == "prompts: clean.jsonl (1)"
    assert [prompt.text for prompt in read_prompts("clean.jsonl")] == ["two crosses"]
    expect_error(main(["prompts", "audit", "train.txt", "eval.txt", "--out", "train.txt"]), capsys, "'train.txt'")


def test_audit_takes_the_splits_a_run_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", "audit", "shapes", "shapes"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("581 held out: 0 the same, 0 nearly the same (>= 0.9), 0 repeated in training")
    assert main(["prompts", "audit", "shapes", "shapes", "--train_split", "validation", "--near", "1"]) == 0
    assert "581 training prompts, 581 held out: 581 the same" in capsys.readouterr().out
