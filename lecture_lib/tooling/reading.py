"""The reading version: executed notebooks as self-contained HTML pages that need no network and no script."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from lecture_lib.tooling import deck, headers
from lecture_lib.tooling.mathml import FormulaError, font_css, to_mathml
from lecture_lib.tooling.outputs import WIDGET_VIEW
from lecture_lib.tooling.publishing import SETUP

if TYPE_CHECKING:
    from nbformat import NotebookNode

HEADING = re.compile(r"<h([1-3])>(.*?)</h\1>", re.DOTALL)
LINK = re.compile(r'href="([^":/]+)\.ipynb(#[^"]*)?"')  # from one notebook to another; pages link to pages
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")


@dataclass
class Page:
    """One page of the reading version; ``problems`` lists formulas that had to be shown as LaTeX."""

    name: str
    title: str
    summary: str
    time: str
    html: str = field(repr=False)
    problems: list[str] = field(default_factory=list)


def render(nb: NotebookNode, name: str) -> Page:
    """Turn an executed notebook into a page (the notebook itself is left as it is); the speaker's notes stay out."""
    nb = deck.without_notes(nb)
    exporter = make_exporter()
    body, _ = exporter.from_notebook_node(standing_alone(nb))
    body, contents = _with_contents(LINK.sub(r'href="\1.html\2"', body))
    text = "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    title = plain(found[1]) if (found := TITLE.search(text)) else name
    html = template("page.html").substitute(
        title=escape(title), style=style() + font_css(body), contents=contents, body=body, name=escape(name)
    )
    time = match[0].replace("**Time** ", "") if (match := headers.LINE.search(text)) else ""
    return Page(name, title, _summary(text), time, html, exporter.problems)


def write(pages: list[Page], folder: Path) -> Path:
    """Write the pages and an index that links them; returns the index's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in pages:
        (folder / f"{page.name}.html").write_text(page.html, encoding="utf-8")
    entries = "\n".join(map(_entry, pages))
    index = folder / "index.html"
    decks = (folder / "slides" / "index.html").is_file()  # what `course slides` wrote beside the pages
    slides = '<p><a href="slides/index.html">The lectures as slides</a></p>' if decks else ""
    html = template("index.html").substitute(style=style(), entries=entries, slides=slides)
    index.write_text(html, encoding="utf-8")
    return index


def _entry(page: Page) -> str:
    return (
        f'<a class="card" href="{escape(page.name)}.html"><h2>{escape(page.title)}</h2>'
        f'<p>{escape(page.summary)}</p><p class="time">{escape(page.time)}</p></a>'
    )


def make_exporter() -> object:
    """nbconvert's exporter with MathML in the place of MathJax; made here so that importing this file is cheap."""
    from nbconvert.exporters.html import HTMLExporter, contextfilter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def __init__(self, problems: list[str], **options: object):
            super().__init__(escape=False, exclude_anchor_links=True, **options)
            self.problems = problems

        def block_math(self, body: str) -> str:
            return self._formula(body, display=True)

        def inline_math(self, body: str) -> str:
            return self._formula(body, display=False)

        def latex_environment(self, name: str, body: str) -> str:
            return self._formula(rf"\begin{{{name}}}{body}\end{{{name}}}", display=True)

        def _formula(self, latex: str, *, display: bool) -> str:
            try:
                return to_mathml(latex, display=display)
            except FormulaError as error:
                self.problems.append(str(error))
                return f"<code>{escape(latex.strip())}</code>"

    class Exporter(HTMLExporter):
        problems: list[str]

        @contextfilter
        def markdown2html(self, context: object, source: str) -> str:
            attachments = context.get("cell", {}).get("attachments", {})
            return MarkdownWithMath(renderer=Renderer(self.problems, attachments=attachments)).render(source)

    exporter = Exporter(template_name="basic")
    exporter.problems = []
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    return exporter


def standing_alone(nb: NotebookNode) -> NotebookNode:
    """A copy that needs neither a kernel nor a network to be read.

    Each widget is the picture that was sent along, LaTeX outputs are Markdown formulas, the badge of Colab is a link in
    words, and of the cell that installs the course there stays what it printed: the versions.
    """
    from copy import deepcopy

    nb = deepcopy(nb)
    for cell in nb.cells:
        cell.source = BADGE.sub(r"[Open in Colab](\1)", cell.source)
        if SETUP in cell.metadata.get("tags", []):
            cell.metadata["transient"] = {"remove_source": True}
    outputs = [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]
    for data in (output.data for output in outputs if "data" in output):
        data.pop(WIDGET_VIEW, None)
        if "text/latex" in data:
            latex = data.pop("text/latex").strip().strip("$")
            data.setdefault("text/markdown", f"$${latex}$$")
    return nb


def _with_contents(body: str) -> tuple[str, str]:
    """The body with an id on each heading, and the list of second- and third-level headings that links to them."""
    links: list[str] = []

    def number(match: re.Match[str]) -> str:
        level, inner = match[1], match[2]
        anchor = f"s{len(links)}"
        links.append(f'<li class="level{level}"><a href="#{anchor}">{_without_tags(inner)}</a></li>')
        return f'<h{level} id="{anchor}">{inner}</h{level}>'

    body = HEADING.sub(number, body)
    return body, "\n".join(link for link in links if "level1" not in link)


def _without_tags(html: str) -> str:
    """Heading text for the contents: formulas stay, links and emphasis go."""
    return re.sub(r"</?(?:a|em|strong|code)\b[^>]*>", "", html)


def plain(markdown: str) -> str:
    """One line of Markdown without its marks."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    return re.sub(r"[*`$]|<[^>]+>", "", text).strip()


def _summary(text: str) -> str:
    """The first two sentences of prose below the title: no heading, bold lead-in, list, quote, table or HTML."""
    lines: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith(("#", "**", "|", ">", "- ", "<", "!", "[![")):
            lines.append(line)
        elif lines:
            break
    return " ".join(re.split(r"(?<=[.!?])\s", plain(" ".join(lines)))[:2])


def template(name: str) -> Template:
    """A page of ``pages/`` with its blanks."""
    return Template(resources.files("lecture_lib.tooling").joinpath("pages", name).read_text(encoding="utf-8"))


def style() -> str:
    """The style sheet, with colours for code in light and in dark."""
    from pygments.formatters import HtmlFormatter

    css = resources.files("lecture_lib.tooling").joinpath("pages", "style.css").read_text(encoding="utf-8")
    light = HtmlFormatter(style="xcode").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{css}"
