"""Small prompt sets in the formats of published ones: sound, and broken in one way each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DSG_HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)


def lines(*rows: object) -> str:
    """JSONL text."""
    return "".join(json.dumps(row) + "\n" for row in rows)


GENEVAL = lines(
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {
        "tag": "counting",
        "include": [{"class": "clock", "count": 2}],
        "exclude": [{"class": "clock", "count": 3}],
        "prompt": "a photo of two clocks",
    },
    {
        "tag": "position",
        "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}],
        "prompt": "a photo of a cat left of a dog",
    },
    {
        "tag": "color_attr",
        "include": [{"class": "bus", "count": 1, "color": "green"}, {"class": "oven", "count": 1, "color": "red"}],
        "prompt": "a photo of a green bus and a red oven",
    },
)
COMPBENCH = {
    "color_train.txt": "a green bench and a blue bowl\r\nThe grey cat sleeps in a red box.\r\na red car and a blue cup",
    "color_val.txt": "a blue bench and a green bowl\nA red car and a blue cup.\n",
    "spatial_train.txt": "a giraffe next to a lamp\n",
    "spatial_val.txt": "a girl on the top of a frog\n",
    "3d_spatial_val.txt": "a dog in front of a desk",
    "numeracy_val.txt": "two boys\na cup, four peaches and one knife lay on the table\n",
    "non_spatial_val.txt": "A person is looking at a rainbow.\n",
    "complex_val.txt": "The red hat was on top of the brown coat rack.\n",
}


def dsg_csv(*rows: Sequence[str]) -> str:
    """CSV text of DSG rows ``(item, text, proposition, dependency, broad, detail, question)``."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(DSG_HEADER.split(","))
    for item, prompt, number, parents, broad, detail, question in rows:
        writer.writerow([item, prompt, "", number, parents, broad, detail, f"{broad} - {detail} ()", question])
    return text.getvalue()


CUBE, HORSE = "A cube, with ten squares", 'A horse says "hello"'
DSG = dsg_csv(
    ("whoops_5", CUBE, "1", "0", "entity", "whole", "Is there a cube?"),
    ("whoops_5", CUBE, "2", "1", "attribute", "shape", "Are there ten squares?"),
    ("drawtext_7", HORSE, "1", "0", "entity", "whole", "Is there a horse?"),
    ("drawtext_7", HORSE, "2", "1,air", "other", "text", "Is there a text?"),
    ("drawtext_7", HORSE, "3", "1, 2", "other", "text", "Does it say hello?"),
)
TIFA = [
    {
        "id": "coco_1",
        "caption": "A surfer walks on a beach.\n",
        "question": "is this a surfer?",
        "choices": ["yes", "no"],
        "answer": "yes",
        "element": "surfer",
        "element_type": "animal/human",
        "coco_val_id": "380711",
    },
    {
        "id": "coco_1",
        "caption": "A surfer walks on a beach.\n",
        "question": "what type of place is this?",
        "choices": ["beach", "park"],
        "answer": "beach",
        "element": "beach",
        "element_type": "location",
        "coco_val_id": "380711",
    },
    {
        "id": "drawbench_52",
        "caption": "Three cats.",
        "question": "how many cats?",
        "choices": ["1", "3"],
        "answer": "3",
        "element": "three",
        "element_type": "counting",
    },
]
SCIENCE = {
    "implicit_prompt": ["An unripe apple.", "Ice in the sun."],
    "explicit_prompt": ["A green apple.", "Melting ice."],
    "superficial_prompt": ["A red apple.", "Hard ice."],
    "category": ["biology", "physics"],
    "law": ["ripeness", "melting"],
    "explicit_image": [[b"\x89PNG"], [b"\x89PNG"]],
}


def lay_sets(folder: Path) -> None:
    """Lays a sound file of each format into a folder, under its published name."""
    (folder / "t2i_compbench").mkdir()
    for name, text in COMPBENCH.items():
        (folder / "t2i_compbench" / name).write_bytes(text.encode())
    (folder / "evaluation_metadata.jsonl").write_text(GENEVAL)
    (folder / "dsg-1k-anns.csv").write_text(DSG)
    (folder / "dpg_bench.csv").write_text(DSG)
    (folder / "tifa_v1.0_question_answers.json").write_text(json.dumps(TIFA))
    pq.write_table(pa.table(SCIENCE), folder / "science-t2i-s.parquet")
    (folder / "WISE/data").mkdir(parents=True)
    (folder / "WISE/data/natural_science.json").write_text(BROKEN["wise.json"])


GOOD = GENEVAL.splitlines(keepends=True)[0]
BROKEN = {
    "empty.csv": "",
    "header.csv": DSG_HEADER + "\n",
    "no-column.csv": "item_id,text\nx_1,a ring\n",
    "open.csv": DSG_HEADER + '\nx_1,"a ring,k,1,0,entity,whole,t,q\n',
    "short.csv": DSG_HEADER + "\nx_1,a ring,k,1\n",
    "number.csv": dsg_csv(("x_1", "a ring", "one", "0", "entity", "whole", "Is there a ring?")),
    "text-changes.csv": dsg_csv(
        ("x_1", "a ring", "1", "0", "e", "w", "q"), ("x_1", "a cross", "2", "0", "e", "w", "q")
    ),
    "twice.csv": dsg_csv(*[("x_1", "a ring", "1", "0", "e", "w", "q")] * 2),
    "no-geneval.jsonl": GOOD + lines({"text": "a ring"}),
    "count.jsonl": GOOD + lines({"tag": "counting", "include": [{"class": "clock", "count": "2"}], "prompt": "x"}),
    "position.jsonl": GOOD
    + lines({"tag": "position", "prompt": "x", "include": [{"class": "a", "count": 1, "position": ["above", 0]}]}),
    "region.jsonl": GOOD
    + lines({"tag": "x", "prompt": "x", "include": [{"class": "a", "count": 1, "region": "left"}]}),
    "size.jsonl": GOOD + lines({"tag": "x", "prompt": "x", "include": [{"class": "a", "count": 1, "size": "large"}]}),
    "own-region.jsonl": lines(
        {
            "text": "a ring",
            "id": "a",
            "truth": {"include": [{"class": "ring", "count": 1, "region": "left"}], "exclude": []},
        }
    ),
    "answers-own.jsonl": lines({"id": "a", "objects": [{"class": "ring", "box": [0, 0, 1, 1], "score": 1}]}),
    "list.jsonl": "[1]\n",
    "object.json": "{}",
    "cut.json": '[{"id": "coco_1", ',
    "no-caption.json": '[{"id": "coco_1", "text": "a ring"}]',
    "choices.json": json.dumps([{**TIFA[0], "choices": "yes"}]),
    "truth.jsonl": lines({"text": "a ring", "truth": "a ring"}),
    "no-sets/notes.txt": "mine",
    "card/README.md": "---\nconfigs:\n- config_name: default\n  data_files: https://example.org/a.csv\n---\n",
    "script/script.py": "raise SystemExit('run')\n",
    "answers-nobody.jsonl": lines({"id": "00009", "objects": []}),
    "answers-box.jsonl": lines({"id": "00000", "objects": [{"class": "bench", "box": [9, 9, 1, 1], "score": 1}]}),
    "answers-score.jsonl": lines({"id": "00000", "objects": [{"class": "bench", "box": [0, 0, 1, 1], "score": "1"}]}),
    "answers-nothing.jsonl": lines({"id": "00000"}),
    "answers-empty.jsonl": "\n",
    "answers-color.jsonl": lines({"id": "00003", "objects": [{"class": "bus", "box": [0, 0, 1, 1], "score": 1}]}),
    "detector/config.json": json.dumps({"model_type": "detr", "id2label": {"0": "circle", "1": "cat"}}),
    "no-names/config.json": json.dumps({"model_type": "detr"}),
    "wise.json": json.dumps([{"Prompt": "a ring", "Explanation": "a ring", "prompt_id": 1}]),
    "wise-number.json": json.dumps([{"Prompt": "a ring", "Explanation": "a ring", "prompt_id": 1001}]),
    "wise-text.json": json.dumps([{"Prompt": "a ring", "prompt_id": 1}]),
    "answers-tifa.jsonl": lines({"id": "coco_1", "answers": {"1": "yes"}}),
    "answers-wise.jsonl": lines({"id": "0001", "ratings": {"consistency": 3, "realism": 1, "aesthetic": 1}}),
    "answers-dsg.jsonl": lines({"id": "whoops_5", "answers": {"1": "yes"}}),
}
"""Files by name; a name with a folder lies in it."""


def lay_broken(folder: Path) -> None:
    """Lays every broken file, and sound ones beside them, into a folder."""
    lay_sets(folder)
    for name, text in BROKEN.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "junk.parquet").write_bytes(bytes(range(256)) * 16)
    (folder / "table.pkl").write_bytes(b"\x80\x04.")
    pq.write_table(pa.table({"text": ["a ring"]}), folder / "no-column.parquet")
    pq.write_table(pa.table({"text": [b"\x80\x04."]}), folder / "pickled.parquet")
