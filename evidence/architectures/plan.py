"""Which architectures are compared, in which setting, and which arms each of them goes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evidence.claims import recipes
from evidence.claims.arm import Arm
from evidence.claims.setting import Setting
from evidence.fit import spec
from evidence.two_models import TwoModels
from unigap.models.base import UnifiedModel

ARMS = {
    **{name: recipes.ARMS[name] for name in ("SFT", "SFT, random accepts", "SFT, oracle accepts")},
    "DPO": Arm("dpo", {"model.init_args.lr": 1.5e-4}),  # one learning rate in all arms
}
"""Arms by name; the first is compared with the two after it."""


@dataclass(frozen=True)
class Architecture:
    """A way for generation and understanding to share weights.

    Attributes:
        shared: What both branches run through.
        checkpoint: The small model that stands for it.
        apart: Two copies of the model instead of one, of which one draws and the other judges.
    """

    shared: str
    checkpoint: str
    apart: bool = False

    def setting(self, **sizes: Any) -> Setting:
        """The setting of its arms, that of the claims in other sizes."""
        kind = ApartSetting if self.apart else Setting
        return kind(self.checkpoint, **sizes)


class ApartSetting(Setting):
    """The setting of an architecture in which the branches share nothing."""

    def model_spec(self) -> dict[str, Any]:
        """Return two copies of the model: one samples images, the other judges them."""
        copies = super().model_spec()
        return spec("evidence.two_models.TwoModels", drawing=copies, judging=copies)

    def open(self) -> UnifiedModel:
        """Load both copies."""
        return TwoModels(super().open(), super().open())


@dataclass(frozen=True)
class ArchitecturesPlan:
    """Sizes of the experiment.

    Attributes:
        janus: Checkpoint of the small Janus.
        emu3: Checkpoint of the small Emu3, which reads an image before the question.
        emu3_question_first: Checkpoint of one that reads the question first.
        show_o: Checkpoint of the small Show-o.
        seeds: Seeds of candidates, training order and test drawings; at least three for intervals.
        per_cell: Training prompts for each (category, difficulty).
        test_per_cell: Prompts of each (category, difficulty) measured on.
        exam: Rendered pictures on which understanding is examined.
        probes: Drawings of each group (right or wrong, accepted or not) on which coupling is measured.
    """

    janus: str = "shapes"
    emu3: str = "shapes-emu3"
    emu3_question_first: str = "shapes-emu3-question-first"
    show_o: str = "shapes-show-o"
    seeds: int = 3
    per_cell: int = 24
    test_per_cell: int = 20
    exam: int = 600
    probes: int = 24

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be >= 1, got {self.seeds}; three or more give intervals")

    def architectures(self) -> Mapping[str, Architecture]:
        """By name, from the least shared to the most."""
        return {
            "two Januses": Architecture("nothing: one copy draws, the other judges", self.janus, apart=True),
            "Janus": Architecture("the trunk; eyes, embeddings and heads are each branch's own", self.janus),
            "Show-o": Architecture("trunk and embeddings; words see what is before, image tokens all", self.show_o),
            "Emu3": Architecture("trunk, embeddings and head; all tokens one after another", self.emu3),
            "Emu3, question first": Architecture(
                "the same; both branches read the text before the image", self.emu3_question_first
            ),
        }

    def settings(self) -> dict[str, Setting]:
        """The setting of each architecture's arms."""
        return {
            name: architecture.setting(per_cell=self.per_cell, test_per_cell=self.test_per_cell, exam=self.exam)
            for name, architecture in self.architectures().items()
        }
