"""BAGEL."""

from unigap.models.bagel.flow import FlowSettings as FlowSettings
from unigap.models.bagel.model import Bagel as Bagel
