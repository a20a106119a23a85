"""``verify``: true claims print one line, false ones raise with both sides, sloppy ones are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lecture_lib.checks import ClaimFailed, verify, verify_less
from lecture_lib.errors import CourseError, RangeError, ShapeError


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1.0, 1.0 + 1e-9),
        (torch.ones(3, 2), torch.ones(3, 2)),
        (np.ones(4), [1, 1, 1, 1]),
        (torch.full((2, 3), 2.0, requires_grad=True), 2),
        (True, True),
        (torch.tensor([True, False]), [True, False]),
        (np.arange(3)[::-1], [2, 1, 0]),
    ],
)
def test_true_claims_print_one_line(capsys, left, right):
    verify("it holds", left, right)
    out = capsys.readouterr().out
    assert "it holds" in out and out.count("\n") == 1 and "off by" in out


def test_the_measured_error_is_shown(capsys):
    verify("close", 1.0, 1.25, tol=0.3)
    assert "2.5e-01" in capsys.readouterr().out


def test_what_is_allowed_is_not_rounded_below_what_is_found(capsys):
    verify("close", 0.0, 0.14, tol=0.15)
    assert "off by 1.4e-01, allowed 0.15" in capsys.readouterr().out
    with pytest.raises(ClaimFailed, match=r"0\.038 > tolerance 0\.036"):
        verify("close", 0.0, 0.038, tol=0.036)


@pytest.mark.parametrize("i", [1j, np.array([1j]), np.complex64(1j), torch.tensor([1j])])
def test_an_imaginary_part_is_not_dropped(i):
    for claim in (verify, verify_less):
        for sides in ((i, 0), (0, i)):
            with pytest.raises(RangeError, match="complex"):
                claim("i is small", *sides)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1.0, 1.1),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])),
        (math.nan, math.nan),
        (math.inf, math.inf),
        (torch.tensor([1.0, math.nan]), torch.ones(2)),
        (True, False),
        (torch.ones(3), 1.5),
    ],
)
def test_false_claims_raise_and_print_nothing(capsys, left, right):
    with pytest.raises(ClaimFailed, match="NOT so: wrong"):
        verify("wrong", left, right)
    assert capsys.readouterr().out == ""


def test_a_failure_shows_where_and_both_sides():
    with pytest.raises(ClaimFailed, match=r"left 2, right 3") as error:
        verify("x", torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.1, 3.0, 5.0]))
    assert isinstance(error.value, CourseError) and isinstance(error.value, AssertionError)
    with pytest.raises(ClaimFailed, match=r"left 7, right 1"):
        verify("x", torch.tensor([1.0, 7.0]), 1.0)


@pytest.mark.parametrize(
    ("left", "right"),
    [(torch.ones(2), torch.ones(3)), (torch.ones(3, 1), torch.ones(3)), ([], []), (torch.ones(0), 1.0)],
)
def test_shapes_that_do_not_match_are_refused(left, right):
    with pytest.raises(ShapeError, match="verify"):
        verify("x", left, right)


def test_tolerance_is_the_border():
    verify("x", 0.0, 0.5, tol=0.5)
    with pytest.raises(ClaimFailed):
        verify("x", 0.0, 0.5 + 1e-9, tol=0.5)
    with pytest.raises(ClaimFailed):
        verify("x", 0.0, 1e-12, tol=math.nan)


def test_less(capsys):
    verify_less("falls", [1, 2], [2, 3])
    assert "falls" in capsys.readouterr().out
    for small, large in (([1, 2], [2, 2]), (3, 2), (math.nan, 1), ([1.0, 5.0], 3.0)):
        with pytest.raises(ClaimFailed, match="NOT so"):
            verify_less("falls", small, large)
    with pytest.raises(ShapeError):
        verify_less("falls", torch.ones(3, 1), torch.ones(3) * 2)
