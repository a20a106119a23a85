"""A notebook of four slides with everything that slides have, for the tests of slides."""

from __future__ import annotations

import base64
import io

NOTE, SECOND_NOTE, SKIPPED, ANSWER = "Only the speaker reads this", "Nor is this for the class", "Small print", "Yes"
PLAIN, OPEN, FOLDED = "1 + 1", "a = 1\n" * 11 + "b = 2", "a = 1\n" * 12 + "b = 2"


def note(minutes: int, text: str) -> str:
    """The source of a speaker's note."""
    return f"<details><summary>Speaker · {minutes} min</summary>\n\n{text}\n</details>"


def notebook():
    """Title; code of three lengths and a widget's picture; a question with an answer to come; a formula, a table."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
    from PIL import Image

    def of(kind):
        return {"slideshow": {"slide_type": kind}}

    buffer = io.BytesIO()
    Image.new("RGB", (400, 700), (0, 114, 178)).save(buffer, format="PNG")
    png = base64.b64encode(buffer.getvalue()).decode()
    picture = new_output("display_data", {"image/png": png}, metadata={"image/png": {"alt": "A blue one"}})
    table = "| a | b |\n|---|---|\n| 1 | 2 |"
    cells = [
        new_markdown_cell("# Lecture 9 · Small\n\n**Time** 9 min reading", metadata=of("slide")),
        new_markdown_cell(note(6, f"{NOTE}, with $w=3$."), metadata=of("notes")),
        new_code_cell("import torch", metadata=of("skip")),
        new_markdown_cell("## 1 · Play\n\nSee [the lab](L9_small_lab.ipynb#part).", metadata=of("slide")),
        new_code_cell(PLAIN, outputs=[picture]),
        new_code_cell(OPEN),
        new_markdown_cell(SKIPPED, metadata=of("skip")),
        new_code_cell(FOLDED),
        new_markdown_cell("Is it so?", metadata=of("slide")),
        new_markdown_cell(note(4, SECOND_NOTE), metadata=of("notes")),
        new_markdown_cell(ANSWER, metadata=of("fragment")),
        new_markdown_cell(f"## Summary\n\n$$\\nabla\\log p_w \\tag{{1}}$$\n\n{table}", metadata=of("slide")),
        new_markdown_cell(SKIPPED, metadata=of("skip")),
    ]
    return new_notebook(cells=cells)
