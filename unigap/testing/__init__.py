"""Check that a model keeps the promises of the protocol: ``check_model`` for tests, ``unigap check`` for a terminal."""

from unigap.testing.promises import Outcome, check_model, outcomes
from unigap.testing.subject import Subject

__all__ = ["Outcome", "Subject", "check_model", "outcomes"]
