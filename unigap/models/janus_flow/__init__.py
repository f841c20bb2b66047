"""JanusFlow."""

from unigap.models.janus_flow.flow import FlowSettings as FlowSettings
from unigap.models.janus_flow.model import JanusFlow as JanusFlow
