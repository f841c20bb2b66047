"""Janus and Janus-Pro."""

from unigap.models.janus.model import Janus as Janus
