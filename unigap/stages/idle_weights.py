"""Find weights that should train but take no part in the loss."""

from __future__ import annotations

from unigap.models.base import UnifiedModel


class IdleWeights:
    """The trainable weights of a model that had no gradient so far.

    Args:
        model: The model.
    """

    def __init__(self, model: UnifiedModel) -> None:
        self._model = model
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        self._names = {name for name in trained if not name.startswith(model.unreached_by_images)}
        self._is_new = True

    def update(self) -> None:
        """Drop the weights that have a gradient; call it after a backward pass."""
        self._is_new = False
        if self._names:
            self._names -= {name for name, p in self._model.named_parameters() if p.grad is not None}

    def refuse(self, objective: str) -> None:
        """Check that no weights are left.

        Args:
            objective: Name of the objective, for the message.

        Raises:
            ValueError: Some had no gradient in any backward pass.
        """
        if self._names and not self._is_new:
            raise ValueError(
                f"{len(self._names)} weights should train but take no part in the loss of {objective}, first "
                f"{min(self._names)}; for Janus set train_also to generation_aligner or generation_head, or choose an "
                "objective that uses these weights"
            )
