"""The ``course`` command. Each subcommand is a few lines over :mod:`lecture_lib.tooling`; the make targets stand on it.

Exit codes: 0 all is well, 1 something did not hold (a test, a notebook, a damaged file), 2 the command was wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lecture_lib.errors import CourseError

app = typer.Typer(
    help="The course on modern image generation: run it, test it, train its models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=PASS_ON)
def lab(context: typer.Context) -> None:
    """Open JupyterLab on the first notebook.

    Further options are passed on to JupyterLab: --no-browser, --port 8889, --ip 0.0.0.0, ...
    """
    from lecture_lib.tooling import project, server

    server.serve(project.root(), context.args)


@app.command()
def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NOTEBOOK]...", help="Only these; default: all.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Save outputs and measured time into notebooks/.")] = False,
    html_only: Annotated[bool, typer.Option("--html-only", help="Run nothing; pages from the saved outputs.")] = False,
    site: Annotated[Path | None, typer.Option(help="Where the pages go; default: site/ in the checkout.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one cell may take.")] = 600,
) -> None:
    """Run notebooks in fresh kernels and write HTML pages.

    The reading version in site/ is made of static pages with an index, which need neither network nor scripts.
    """
    from lecture_lib.tooling import project, running

    folder = project.root()
    books = project.select(names or [])
    if html_only and write:
        raise typer.BadParameter("--write saves what was run, and --html-only runs nothing")
    failed = running.run_all(books, site or folder / "site", write=write, html_only=html_only, timeout=timeout)
    raise typer.Exit(1 if failed else 0)


@app.command(context_settings=PASS_ON)
def test(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="Without the notebooks and the browser.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="With the tests marked slow.")] = False,
) -> None:
    """Run everything that must hold, and count.

    The tests, then each notebook in a fresh kernel; the last line has the counts. Further options go to pytest over
    tests/: -k NAME, -x, ...
    """
    from lecture_lib.tooling import project, testing

    counts = testing.run(project.root(), quick=quick, everything=everything, extra=context.args)
    print(counts, flush=True)
    raise typer.Exit(1 if counts.failed or not counts.passed else 0)


@app.command()
def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NOTEBOOK]...", help="Only these; default: all.")
    ] = None,
) -> None:
    """Check that notebooks agree with their sources.

    Each .ipynb must be what its .py source makes; where it is not, the difference is shown.
    """
    from lecture_lib.tooling import pairing, project

    drifted = {book.name: text for book in project.select(names or []) if (text := pairing.drift(book))}
    for name, text in drifted.items():
        print(f"{name}: the source and the notebook differ; rebuild with `course run --write {name}`\n{text}\n")
    print(f"{len(drifted)} of {len(project.select(names or []))} notebooks differ from their source")
    raise typer.Exit(1 if drifted else 0)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe; `course zoo` lists them.")],
    directory: Annotated[Path | None, typer.Option(help="Checkpoints and result; default: runs/RECIPE.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint, bit for bit.")] = True,
    install: Annotated[
        bool, typer.Option("--install", help="Put the result into the zoo, replacing what is there.")
    ] = False,
) -> None:
    """Train a model of the zoo from its recipe.

    Stop it at any time; the same command goes on from the last checkpoint, and ends with the same weights.
    """
    from lecture_lib.tooling import models

    models.train(recipe, directory or Path("runs") / recipe, resume=resume, install=install)


@app.command()
def scale(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe; `course zoo` lists them.")],
    shards: Annotated[int, typer.Option(help="Batches per update, shared out among the processes.")] = 2,
    steps: Annotated[int | None, typer.Option(help="Updates; default: the recipe's.")] = None,
    spread: Annotated[str, typer.Option(help="copies (data parallel) or parts (sharded weights).")] = "copies",
    path: Annotated[Path | None, typer.Option(help="The weights; default: runs/RECIPE.safetensors.")] = None,
) -> None:
    """Train a recipe in several processes: torchrun --nproc_per_node=2 -m lecture_lib.cli scale RECIPE.

    One process or many, the losses are the same up to rounding. The zoo is left alone.
    """
    from lecture_lib.tooling import models

    models.scale(recipe, path or Path("runs") / f"{recipe}.safetensors", shards=shards, steps=steps, spread=spread)


@app.command()
def zoo(
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Measure the quality of all models now (long).")] = False,
    embed: Annotated[bool, typer.Option("--embed", help="Write what was measured into the weights files.")] = False,
) -> None:
    """List the pretrained models, or measure them.

    Exit code 1 when a file is missing or damaged, or when a bar is missed.
    """
    from lecture_lib.tooling import models

    if embed and not evaluate:
        raise typer.BadParameter("--embed writes what --evaluate measures: give both")
    sound = models.show_status()
    if evaluate:
        sound = models.show_evaluation(embed=embed) and sound
    raise typer.Exit(0 if sound else 1)


@app.command()
def info() -> None:
    """Print what to paste into a bug report.

    Versions, device, and the state of the zoo; it works also where packages are missing.
    """
    from lecture_lib.tooling import info as facts

    for what, value in facts.report():
        print(f"{what:<12} {value}", flush=True)


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these; default: all.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when a bar is missed.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write each benchmark there too, as CSV and, if any, figure.")
    ] = None,
) -> None:
    """Measure the bars of the course here.

    One benchmark per module of lecture_lib.benchmarks: import time, slider latency, samplers and the like.
    """
    from lecture_lib.tooling import benching

    missed = 0
    print(benching.conditions(), flush=True)
    for name in names or benching.names():
        measurements = []
        for measurement in benching.run(name):
            print(measurement, flush=True)
            measurements.append(measurement)
            missed += not measurement.within
        for path in benching.save(name, measurements, out) if out else []:
            print(f"wrote {path}", flush=True)
    raise typer.Exit(1 if strict and missed else 0)


@app.command()
def mnist(
    directory: Annotated[Path, typer.Argument(help="Checkpoints, weights, table and figure.")] = Path("runs/mnist"),
) -> None:
    """Train every family on MNIST and measure it like the digits (hours).

    Needs a network once, for 15 MB. Stop it at any time; the same command goes on where it was.
    """
    from lecture_lib.tooling import models

    models.mnist(directory)


@app.command()
def exercises(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if any differs.")] = False,
) -> None:
    """Make the students' notebooks in exercises/ from the solutions."""
    from lecture_lib.tooling import exercises as making
    from lecture_lib.tooling import project

    folder = project.root()
    paths = making.drifted(folder) if check else making.write_all(folder)
    for path in paths:
        print(f"{'differs from its solution:' if check else 'wrote'} {path.relative_to(folder)}", flush=True)
    raise typer.Exit(1 if check and paths else 0)


@app.command()
def grade(
    submissions: Annotated[Path, typer.Argument(help="A folder with a folder or a notebook per student.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Where results go; a run that stopped goes on there.")],
    lecture: Annotated[int, typer.Option(min=1, max=5, help="Which exercise it is.")],
    seed: Annotated[int | None, typer.Option(help="Of the numbers that answers face; default: a new one.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Submissions at the same time.")] = 2,
    trust: Annotated[bool, typer.Option("--trust", help="Without walls: answers run with your rights.")] = False,
    gradebook: Annotated[
        Path | None, typer.Option(help="Write the marks into this gradebook of nbgrader, too.")
    ] = None,
) -> None:
    """Mark submissions; every answer runs behind walls, on numbers that nobody has seen.

    Results are kept question by question, so a run may be stopped and started again. Written are a CSV, a JSON, a
    feedback page per student and a page of the class.
    """
    from lecture_lib.tooling import marking

    marking.mark(submissions, out, lecture, seed=seed, jobs=jobs, isolated=not trust, book=gradebook)


@app.command()
def nbgrader(
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder.")],
) -> None:
    """Lay out a course folder of nbgrader: the solutions of all exercises as its sources, and its configuration.

    In it, `nbgrader generate_assignment E2` makes what students get, and `nbgrader autograde E2` marks what they hand
    in. That runs answers without walls and believes them: marks that count are those of `course grade --gradebook`.
    """
    from lecture_lib.tooling import nbgrading

    print(f"wrote {nbgrading.lay_out(out)}")


@app.command()
def release(
    lecture: Annotated[int, typer.Argument(min=1, max=5)],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder, or a name that ends in .zip.")],
) -> None:
    """Write what students get of a lecture: its notebooks and its exercise, without solutions and hidden tests."""
    from lecture_lib.tooling import releasing

    print(f"wrote {releasing.release(lecture, out)}")


@app.command()
def publish(
    repo: Annotated[str, typer.Option(metavar="OWNER/NAME", help="The repository on GitHub.")],
    ref: Annotated[str, typer.Option(help="A tag, a commit, or a branch without a slash.")] = "main",
) -> None:
    """Write the address that Colab fetches the course from into badges and first cells.

    Nothing is run and no output is lost. Afterwards commit, tag, and push.
    """
    from lecture_lib.tooling import project, publishing

    folder = project.root()
    for path in publishing.publish(folder, publishing.Address(repo, ref)):
        print(f"wrote {path.relative_to(folder)}")


@app.command()
def slides(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[LECTURE]...", help="Only these; default: all lectures.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Default: site/slides/ in the checkout.")] = None,
) -> None:
    """Write lectures as HTML slides with speaker notes.

    Each is one file that needs neither a network nor a kernel, made from the saved outputs; the sheet beside it has the
    timetable, and what to say.
    """
    from lecture_lib.tooling import project
    from lecture_lib.tooling import slides as making

    books = project.select(names) if names else making.lectures()
    print(f"slides: {making.write_all(books, out or project.root() / 'site' / 'slides')}")


def main() -> None:
    """Entry point: an error that the course raises on purpose becomes one line and exit code 2."""
    try:
        app(prog_name="course")
    except CourseError as error:
        print(f"course: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
