"""The benchmarks of widths and of scaling, without their trainings: costs, readings, figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lecture_lib.benchmarks import scaling, widths
from lecture_lib.errors import RangeError
from lecture_lib.tooling.benching import Measurement, save
from lecture_lib.training.forecast import Run
from lecture_lib.training.mup import Role, width_rules
from lecture_lib.training.scaling import ParametricLaw


def curve(best):
    return {power: 0.7 + 0.01 * (power - best) ** 2 for power in range(-12, -3)}


def measured_widths():
    """Losses whose best rate stays under μP and falls with each doubling under SP; one training broke down."""
    rows = []
    for k, width in enumerate(widths.WIDTHS):
        for kind, best in ((widths.SP, -6 - k), (widths.MUP, -6)):
            for power, loss in curve(best).items():
                loss = math.nan if power == -4 and kind == widths.SP else loss
                rows.append(Measurement(f"{widths.name(kind, width)}, rate 2^{power}: test loss", loss, ""))
    return [*rows, Measurement("SP: best rate from width 64 to 512 moves by factors of 2", 3, "")]


def test_widths_are_read_back_and_drawn(tmp_path):
    found = widths.curves(measured_widths())
    assert set(found) == {(kind, width) for kind in (widths.SP, widths.MUP) for width in widths.WIDTHS}
    assert [widths.best(found[widths.SP, width]) for width in widths.WIDTHS[1:]] == [-7, -8, -9]
    assert all(widths.best(found[widths.MUP, width]) == -6 for width in widths.WIDTHS)
    left, right = widths.figure(measured_widths()).axes
    rings = [line.get_xdata()[0] for line in left.lines if line.get_markersize() == 14]
    assert rings[1:] == [2.0**-7, 2.0**-8, 2.0**-9] and left.get_ylim() == right.get_ylim()


def test_the_best_rate_must_lie_inside_the_grid():
    assert widths.best(curve(-8)) == -8
    for wrong in (curve(-12), curve(-4), dict.fromkeys(range(-12, -3), math.nan)):
        with pytest.raises(RangeError, match="expected one inside"):
            widths.best(wrong)


def test_the_transformers_of_the_sweep_widen_as_mup_assumes():
    for module in (widths, scaling):
        rules = width_rules(module.transformer(128), module.transformer(64))
        assert {name for name, rule in rules.items() if rule.role is Role.OUTPUT} == {"final.linear.weight"}
        assert {rule.growth for rule in rules.values()} == {1.0, 2.0}


@pytest.mark.parametrize("width", [16, 64])
def test_operations_by_hand(width):
    # Matrix products of one image, 2 operations per multiply-add; 4 tokens. Backward costs twice the forward, once
    # where the input needs no gradient (patches, sinusoids). The fused attention kernel is not in torch's table.
    per_token = 2 * 4 * (3 + 1 + 8) * width**2
    block = per_token + 2 * 6 * width**2
    inner = 2 * block + 2 * width**2 + 2 * 2 * width**2 + 2 * 4 * width * 16  # blocks, time, final modulation, output
    outer = 2 * 4 * 16 * width + 2 * 256 * width
    assert scaling.cost(width)[1] == 3 * inner + 2 * outer


def test_findings_and_figure_of_a_known_law(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "RESAMPLES", 5)
    # Losses from L(N, D) at the benchmark's own sizes and budgets, with D = C / (cost of one sample).
    law, runs = ParametricLaw(0.35, 60.0, 0.5, 120.0, 0.5), []
    for compute, chosen in scaling.SWEEP.items():
        for width in chosen:
            size, operations = scaling.cost(width)
            samples = round(compute / operations)
            runs.append(Run(compute, size, samples, 0, float(law(size, samples))))
    found = {m.what: m.value for m in scaling.findings(runs)}
    assert found["L(N, D): exponent α of parameters"] == pytest.approx(0.5, rel=1e-3)
    assert found["L(N, D): floor E"] == pytest.approx(0.35, rel=1e-3)
    assert found["isoFLOP: best size ∝ C to the power"] == pytest.approx(0.5, abs=0.05)
    at = f"best loss at {max(scaling.SWEEP):g} FLOP"
    assert found[f"{at}, foretold from smaller budgets: with a floor"] == pytest.approx(
        found[f"{at}, measured"], rel=0.02
    )
    rows = [Measurement(run.what, run.loss, "") for run in runs]
    table, picture = save("scaling", rows, tmp_path)
    assert len(table.read_text().splitlines()) == 1 + len(runs) and picture.read_bytes().startswith(b"\x89PNG")
    left, right = scaling.figure(rows).axes
    assert len(left.lines) == 3 * len(scaling.SWEEP)
    held_out = right.lines[-1]
    assert held_out.get_xdata() == pytest.approx([max(scaling.SWEEP) / 1e9]) and np.isfinite(held_out.get_ydata()).all()
