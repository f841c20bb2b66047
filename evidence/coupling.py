"""Measure the coupling of the two branches of a model, and of controls that cannot be coupled."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

import theory
from evidence.results_file import Result
from evidence.theory_plan import TheoryPlan, read_pool, trained_state
from evidence.two_models import TwoModels
from unigap.callbacks.dynamics_coupling import coupling_by_part, layer_of, own_cosine_by_group
from unigap.callbacks.dynamics_probes import GROUPS, WatchedImages, paired_sources
from unigap.judges import SelfJudge
from unigap.models.janus import Janus
from unigap.worlds.shapes.untrained import UntrainedJanus

PERMUTATIONS = 1000


def couplings(plan: TheoryPlan, seed: int, folder: Path) -> Result:
    """Measure the coupling on probes among the base model's candidates.

    Returns:
        Figures by subject: the base model; the base model after self-improvement; an untrained model of the same
        architecture; and two trunks that share nothing.
    """
    model = Janus(plan.checkpoint)
    probes = read_pool(folder).probes(plan.coupling_probes, seed)
    sources = paired_sources(model, probes.candidates, SelfJudge().questions)
    found = {"base": coupling_of(model, sources, probes)}
    with model.with_state(trained_state(folder)):
        found["improved"] = coupling_of(model, sources, probes)
    config = model.net.config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        untrained = UntrainedJanus(
            config.text_config.hidden_size, config.text_config.num_hidden_layers, model.n_codes
        ).model()
    untrained.train_only_trunk()
    found["untrained"] = coupling_of(untrained.eval(), sources, probes)
    found["two trunks"] = coupling_of(TwoModels(model, copy.deepcopy(model)), sources, probes)
    return found


def coupling_of(model: nn.Module, sources: list[theory.Source], probes: WatchedImages) -> Result:
    """Return own-pair cosine and coupling with their nulls, by part of the network and by probe group."""
    taken = theory.gram(model, sources, per_module=True).regrouped(layer_of)
    tests = vars(theory.alignment(taken, PERMUTATIONS))
    groups = {group: probes.members(group) for group in GROUPS}
    return {
        "n": len(probes.groups),
        "tests": {name: vars(tested) for name, tested in tests.items()},
        "parts": {name: vars(tested) for name, tested in coupling_by_part(taken).items()},
        "groups": {name: vars(t) for name, t in own_cosine_by_group(taken, groups, PERMUTATIONS).items()},
        "counts": {group: len(members) for group, members in groups.items()},
    }
