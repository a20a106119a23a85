"""The shapes world: coloured shapes on plain ground, with exact captions, and an oracle that reads pixels."""

from lecture_lib.data.shapes.captions import (
    VOCABULARY,
    Captioned,
    Wish,
    caption,
    captioned,
    glosses,
    kept_for_test,
    parse,
)
from lecture_lib.data.shapes.drawing import draw
from lecture_lib.data.shapes.edges import edges, sobel
from lecture_lib.data.shapes.reading import Seen, Verdict, foreground, judge_captions, read
from lecture_lib.data.shapes.scenes import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    Scenes,
    Thing,
    draw_scenes,
    relation,
)
from lecture_lib.data.shapes.stream import FreshScenes

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "HELD_OUT",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "VOCABULARY",
    "Captioned",
    "FreshScenes",
    "Scene",
    "Scenes",
    "Seen",
    "Thing",
    "Verdict",
    "Wish",
    "caption",
    "captioned",
    "draw",
    "draw_scenes",
    "edges",
    "foreground",
    "glosses",
    "judge_captions",
    "kept_for_test",
    "parse",
    "read",
    "relation",
    "sobel",
]
