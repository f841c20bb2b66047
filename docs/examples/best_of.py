"""Sample 16 images, keep the 2 that the model's own judge accepts most surely."""

from unigap.loop.best_of import best_of
from unigap.models.families import load_model
from unigap.records import Prompt

model = load_model("shapes").eval()
kept = best_of(model, [Prompt("first", "a large red circle")], n=16, keep=2)
kept[0].image.save("best.png")
