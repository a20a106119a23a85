r"""Formulas for the static reading version: LaTeX to MathML, which browsers draw without script or network."""

from __future__ import annotations

import base64
import io
import re
from functools import lru_cache
from html import escape, unescape
from importlib.util import find_spec
from pathlib import Path

from lecture_lib.errors import CourseError

TAG = re.compile(r"\\tag\{([^}]*)\}")
LABEL = re.compile(r"\\label\{[^}]*\}")
# A script on a sized bracket, \\Bigr)^{w}: browsers then draw the bracket small, while \\right)^{w} grows as it should.
SCRIPTED_BRACKET = re.compile(r"\\[bB]igg?r\s*(?:\\[a-zA-Z|]+|[^\\a-zA-Z])\s*[\^_]")
SIZED_BRACKET = re.compile(r"\\[bB]igg?([lr])(?![a-zA-Z])")
# Browsers draw a letter in a formula with its mathematical italic, which stands elsewhere in the font.
ITALICS = "".join(map(chr, [*range(0x1D434, 0x1D468), *range(0x1D6E2, 0x1D71C), 0x210E]))
MATH = re.compile(r"<math\b.*?</math>", re.DOTALL)


class FormulaError(CourseError):
    """A formula that the reading version cannot show; the message quotes it."""


def to_mathml(latex: str, *, display: bool = False) -> str:
    r"""One formula, without its dollar signs, as a ``<math>`` element; a ``\tag`` becomes a number at the right.

    Raises:
        FormulaError: the formula does not parse or uses an unknown command.
    """
    from math_core import LatexError, LatexToMathML

    tag = TAG.search(latex)
    body = LABEL.sub("", TAG.sub("", latex)).strip()
    if SCRIPTED_BRACKET.search(body):
        body = SIZED_BRACKET.sub(lambda match: r"\left" if match[1] == "l" else r"\right", body)
    try:
        math = LatexToMathML(fancy_error=False).convert_with_local_state(body, displaystyle=display)
    except LatexError as error:
        raise FormulaError(f"{error} in the formula: {latex.strip()}") from error
    if not display:
        return math
    number = f'<span class="number">({escape(tag[1])})</span>' if tag else ""
    return f'<div class="formula">{math}{number}</div>'


def font_css(html: str) -> str:
    """A ``@font-face`` rule with just the glyphs that the formulas of a page need, embedded in it.

    Brackets and roots only grow with their contents in a font that has a MATH table, and many systems have none.
    """
    text = unescape(re.sub(r"<[^>]+>", "", "".join(MATH.findall(html))))
    return _subset_css("".join(sorted(set(text)))) if text.strip() else ""


@lru_cache(maxsize=8)
def _subset_css(characters: str) -> str:
    """STIX Two Math (SIL Open Font License), cut down to ``characters`` and the larger forms of their glyphs."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    package = find_spec("ziamath").submodule_search_locations[0]  # found, not imported: only its font is wanted
    font = TTFont(Path(package) / "fonts" / "STIXTwoMath-Regular.ttf")
    options = subset.Options(
        layout_features=["ssty", "dtls", "flac"], hinting=False, drop_tables=["FFTM"], notdef_outline=True
    )
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=characters + ITALICS + "()[]{}|‖√")
    subsetter.subset(font)
    font.flavor = "woff"
    buffer = io.BytesIO()
    font.save(buffer)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'@font-face {{ font-family: "Course Math"; src: url(data:font/woff;base64,{encoded}) format("woff"); }}'
