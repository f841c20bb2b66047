"""VILA-U."""

from unigap.models.vila_u.model import VilaU as VilaU
