"""Learning dynamics of a model with two heads: the empirical NTK (eNTK) between generation and understanding.

Every function takes log-likelihoods as ``logp_fn(model, batch) -> Tensor[n]``. Gradients are exact; they are compared
with plain autograd. Needs torch only.
"""

from theory.checks import CheckReport, self_check
from theory.contract import LogpFn, Source
from theory.coupling import Alignment, Tested, alignment, own_cosines
from theory.directional_derivative import Direction, directional
from theory.gradient_features import Features, SketchNoiseWarning, features
from theory.kernel import Gram, cross_gram, gram
from theory.lemmas import (
    bayes_logp,
    dpo_generation,
    dpo_loss,
    dpo_margins,
    dpo_understanding,
    policy_generation,
    policy_understanding,
    posterior,
    sft_generation,
    sft_understanding,
)
from theory.methods import Method
from theory.prediction_fit import Fit, error_order, fit
from theory.predictions import Probes, Readings, predict_dpo, predict_policy, predict_sft, read
from theory.selection import LORA, Select, Selection, select_parameters, trunk_only
from theory.squeezing_effect import Squeezing, squeezing
from theory.step_probe import LowPrecisionWarning, StepProbe, StepReport
from theory.token_kernel import TokenKernel, token_gram, trunk_kernel

__all__ = [
    "LORA",
    "Alignment",
    "CheckReport",
    "Direction",
    "Features",
    "Fit",
    "Gram",
    "LogpFn",
    "LowPrecisionWarning",
    "Method",
    "Probes",
    "Readings",
    "Select",
    "Selection",
    "SketchNoiseWarning",
    "Source",
    "Squeezing",
    "StepProbe",
    "StepReport",
    "Tested",
    "TokenKernel",
    "alignment",
    "bayes_logp",
    "cross_gram",
    "directional",
    "dpo_generation",
    "dpo_loss",
    "dpo_margins",
    "dpo_understanding",
    "error_order",
    "features",
    "fit",
    "gram",
    "own_cosines",
    "policy_generation",
    "policy_understanding",
    "posterior",
    "predict_dpo",
    "predict_policy",
    "predict_sft",
    "read",
    "select_parameters",
    "self_check",
    "sft_generation",
    "sft_understanding",
    "squeezing",
    "token_gram",
    "trunk_kernel",
    "trunk_only",
]
