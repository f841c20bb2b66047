"""Show-o."""

from unigap.models.showo.model import ShowO as ShowO
