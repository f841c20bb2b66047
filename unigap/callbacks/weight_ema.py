"""Evaluate and save averaged weights instead of those of the last step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unigap.stages.sharded import refuse_sharded

CURRENT, COUNT = "current_model_state", "averaging_state"
"""Keys of a checkpoint for the weights of the last step and the number of updates, as in Lightning's callback."""


class WeightEMA(Callback):
    """Exponential moving average of the weights that train.

    Lightning's ``EMAWeightAveraging`` copies the whole module, frozen weights included, and averages by two rounded
    products, which changes frozen bfloat16 weights slightly. Here only the weights that train are copied, and averages
    are interpolated, which keeps equal numbers unchanged. Validation and the end of the run use the averages.

    Args:
        decay: Share of the old average that each update keeps, in [0, 1).
        each: Update the average after every optimizer ``step`` or every ``epoch``. The first update starts the
            average.

    Raises:
        ValueError: The decay is out of range.
    """

    def __init__(self, decay: float = 0.999, each: Literal["step", "epoch"] = "step") -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay of the averaged weights is {decay}; it must lie in [0, 1)")
        self.decay, self.each = decay, each
        self._average: AveragedModel | None = None
        self._last_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the weights that train.

        Raises:
            ValueError: The strategy shards the weights.
        """
        if stage != "fit":
            return
        refuse_sharded(trainer, "weight averaging")
        mean = get_ema_multi_avg_fn(self.decay)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(_TrainedWeights(pl_module), multi_avg_fn=mean)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to the device of the model."""
        assert self._average is not None
        self._average.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after an optimizer step."""
        if self.each == "step" and trainer.global_step > self._last_step:
            self._update(pl_module)
            self._last_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Update the average after an epoch."""
        if self.each == "epoch":
            self._update(pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the averages."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train on with the weights of the last step."""
        self._swap(pl_module)

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the averages in the model."""
        for average, weight in self._pairs(pl_module):
            weight.copy_(average)

    def state_dict(self) -> dict[str, Any]:
        """Return the last step that the average knows."""
        return {"latest_update_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the last step that the average knows."""
        self._last_step = state_dict["latest_update_step"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the averages as the weights, and next to them the weights of the last step."""
        if self._average is None:
            return
        names = trained_names(pl_module)
        averages = [average.detach() for average, _ in self._pairs(pl_module)]
        checkpoint[CURRENT] = {name: checkpoint["state_dict"][name] for name in names}
        checkpoint["state_dict"] = checkpoint["state_dict"] | dict(zip(names, averages, strict=True))
        checkpoint[COUNT] = {"n_averaged": self._average.n_averaged}

    @torch.no_grad()
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore averages and weights; Lightning has loaded the averages into the model."""
        for average, weight in self._pairs(pl_module):
            average.copy_(weight)
        if self._average is not None and CURRENT in checkpoint:
            self._average.n_averaged.copy_(checkpoint[COUNT]["n_averaged"])
            pl_module.load_state_dict(checkpoint[CURRENT], strict=False)

    def _update(self, module: LightningModule) -> None:
        assert self._average is not None
        self._average.update_parameters(_TrainedWeights(module))

    @torch.no_grad()
    def _swap(self, module: LightningModule) -> None:
        for average, weight in self._pairs(module):
            kept = average.clone()
            average.copy_(weight)
            weight.copy_(kept)

    def _pairs(self, module: LightningModule) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        """Yield each average with its weight; nothing outside ``fit``."""
        if self._average is not None:
            yield from zip(self._average.module.parameters(), _TrainedWeights(module).parameters(), strict=True)


class _TrainedWeights(nn.Module):
    """View of the weights of a module that train."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weight for weight in module.parameters() if weight.requires_grad)


def trained_names(module: nn.Module) -> list[str]:
    """Return the names of the weights that train, in the order of ``parameters``."""
    return [name for name, weight in module.named_parameters() if weight.requires_grad]
