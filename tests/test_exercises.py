"""Every question: right answers pass however they are written, wrong ones fail and hear why."""

from __future__ import annotations

import importlib

import pytest
import torch
from IPython.core.formatters import DisplayFormatter

from lecture_lib.exercises import check
from lecture_lib.exercises.catalogue import LECTURES, sheet
from lecture_lib.exercises.checking import _borrowed
from lecture_lib.exercises.judging import judge
from lecture_lib.exercises.task import Case, Task
from lecture_lib.guidance import linear

SEEDS = (0, 1, 2)
SHEETS = [sheet(lecture) for lecture in LECTURES]
TASKS = [task for one in SHEETS for task in one.tasks]
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
each_sheet = pytest.mark.parametrize("sheet", SHEETS, ids=lambda one: one.notebook)


def verdict(task, answer, seed):
    cases = task.cases(seed)
    return judge(task, cases, [task.outcome(answer, case) for case in cases])


@each_sheet
def test_a_sheet_has_a_hundred_points_and_ten_questions(sheet):
    assert sum(task.points for task in sheet.tasks) == 100
    assert len(sheet.tasks) >= 10
    assert [task.name for task in sheet.tasks] == [f"{sheet.lecture}.{k + 1}" for k in range(len(sheet.tasks))]
    assert len({task.function for task in sheet.tasks}) == len(sheet.tasks)


@each_task
@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_agrees_with_its_closed_forms(task, seed):
    assert verdict(task, task.answer, seed)
    assert task.edges, "a question has an end point or a closed form"


@each_task
def test_five_wrong_answers_each_hear_their_own_hint(task):
    assert len(task.mistakes) >= 5
    assert len({mistake.hint for mistake in task.mistakes}) == len(task.mistakes)
    for mistake in task.mistakes:
        for seed in SEEDS:
            got = verdict(task, mistake.answer, seed)
            assert not got, f"{task.name}: {mistake.name} passes"
            assert got.name == mistake.name, f"{task.name}: {mistake.name} is told {got.hint!r}"


@each_task
def test_right_answers_written_differently_pass(task):
    answers = importlib.import_module(f"tests.exercise_answers.lecture{task.name.split('.')[0]}").ANSWERS[task.name]
    assert len(answers) >= 2
    for answer in answers:
        for seed in SEEDS:
            got = verdict(task, answer, seed)
            assert got, f"{task.name}: {answer.__name__} is told {got.hint!r}"


@each_task
def test_an_empty_answer_is_told_so(task):
    def empty(*args, **inputs):
        raise NotImplementedError

    got = verdict(task, empty, 0)
    assert not got and got.kind == "empty" and task.function in got.hint


def test_a_check_speaks_in_words_and_leaves_no_repr_below_its_cell(capsys):
    guided = lambda uncond, cond, w: cond + w * (cond - uncond)  # noqa: E731
    found = check("2.1")
    first, hint, numbers = capsys.readouterr().out.splitlines()
    assert first.startswith("\N{BALLOT X} 2.1") and "1 + w" in hint and "right" in numbers and not found
    assert DisplayFormatter().format(found) == ({}, {})
    guided = lambda uncond, cond, w: uncond + w * (cond - uncond)  # noqa: E731, F841
    assert check("2.1") and capsys.readouterr().out == "\N{CHECK MARK} 2.1 the guidance rule: 5 points\n"


def test_an_answer_that_leans_on_the_course_hears_so(capsys):
    guided = sheet(2).tasks[0].answer  # noqa: F841
    assert not check("2.1") and "of the course" in capsys.readouterr().out


@pytest.mark.parametrize(
    "body",
    [
        "return (lambda: linear(w))()",
        "return sum(linear(k) for k in range(2))",
        "from lecture_lib.guidance import linear as rule; return rule(w)",
        "import lecture_lib.guidance as rules; return rules.linear(w)",
    ],
)
def test_so_does_one_that_hides_it_in_a_function_of_its_own_or_imports_it(body):
    """Behind walls there is no such name: what passes here must not fail there."""
    names = {"linear": linear}
    exec(f"def guided(uncond, cond, w):\n    {body}", names)
    assert "lecture_lib" in _borrowed(names["guided"]) or "of the course" in _borrowed(names["guided"])


def test_an_attribute_that_is_called_like_something_of_the_course_is_no_loan():
    names = {"linear": linear}
    exec("def guided(uncond, cond, w):\n    return w.linear", names)
    assert _borrowed(names["guided"]) == ""


@each_task
def test_random_cases_differ_in_size_and_number(task):
    first, second = (task.draw(torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert first.keys() == second.keys()
    assert repr(first) != repr(second)
    numbers = [v for v in first.values() if isinstance(v, float)]
    assert len(set(numbers)) == len(numbers) and not set(numbers) & {0.0, 1.0}


def test_an_answer_in_bfloat16_is_told_that_it_is_rounded_not_that_it_raised():
    got = verdict(sheet(2).by_name["2.1"], lambda uncond, cond, w: (uncond + w * (cond - uncond)).bfloat16(), 0)
    assert got.kind == "pattern" and "raised" not in got.hint


def test_one_number_is_not_told_that_a_factor_is_missing():
    task = sheet(1).by_name["1.9"]

    def bent(**inputs):
        return task.answer(**inputs) + task.answer(**inputs) ** 3

    def one_kind_wrong(out, target, kind, **rest):
        return task.answer(out, target, kind, **rest) * (7 if kind == "v" else 1)

    assert "in no simple way" in verdict(task, bent, 0).hint
    assert "in no simple way" in verdict(task, one_kind_wrong, 0).hint
    assert "is 7 times" in verdict(task, lambda **k: 7 * task.answer(**k), 0).hint


def test_what_cannot_be_asked_for_gradients_is_told_so_in_the_words_of_the_question():
    task = sheet(1).by_name["1.5"]
    assert "the shapes () and (3, 2)" in verdict(task, lambda *inputs: task.answer(*inputs)[::-1], 0).hint
    assert "expected two things" in verdict(task, lambda *inputs: task.answer(*inputs)[0], 0).hint


def test_a_zero_has_to_be_one_and_no_table_is_still_told_so():
    task = sheet(1).by_name["1.7"]
    assert verdict(task, lambda alpha_bar: task.answer(alpha_bar) + 1e-8, 0).name == "kept_off_zero"
    assert "is there a `return`" in verdict(task, lambda alpha_bar: None, 0).hint
    assert "has to become a tensor" in verdict(task, lambda alpha_bar: task.answer(alpha_bar).tolist(), 0).hint


QUESTIONS = {task.name: task for task in TASKS}


def said(name, answer):
    return verdict(QUESTIONS[name], answer, 0)


def told(name, answer):
    return said(name, answer).hint


def test_a_factor_is_named_only_if_it_is_the_whole_difference():
    block, cost, law = (QUESTIONS[name] for name in ("3.13", "3.6", "3.10"))
    assert "1.01 times" in told("3.13", lambda *inputs: 1.01 * block(*inputs))
    assert "1000 times" in told("3.6", lambda **inputs: [1000 * x for x in cost(**inputs)])
    hint = told("3.6", lambda **inputs: [x / unit for x, unit in zip(cost(**inputs), (1e6, 1e9), strict=True)])
    assert "no simple way" in hint, "each number in a unit of its own"

    def alpha_a_little_off(**inputs):
        floor, alpha, there = law(**inputs)
        return floor, 1.1 * alpha, there

    assert "no simple way" in told("3.10", alpha_a_little_off)


def test_single_numbers_are_not_said_to_be_off_by_one_factor_or_constant():
    scalar = Task("0.0", 1, "a number", lambda x: 2 * x + 1, 1e-4)
    cases = [Case({"x": x}) for x in (0.3, 0.7, 1.1)]
    got = judge(scalar, cases, [scalar.outcome(lambda x: x**3 - 2, case) for case in cases])
    assert not got and "no simple way" in got.hint


def test_a_list_where_a_tensor_is_expected_and_the_other_way_round_are_told_so():
    hint = told("3.9", lambda **inputs: QUESTIONS["3.9"](**inputs).tolist())
    assert "3 things in a list" in hint and "one tensor" in hint
    assert "1 thing in a list" in told("3.1", lambda **inputs: QUESTIONS["3.1"](**inputs).tolist())
    assert "`return a, b`" in told("3.6", lambda **inputs: torch.tensor(QUESTIONS["3.6"](**inputs)))


def test_of_several_results_the_one_of_the_wrong_form_is_named():
    def turned_sum(**inputs):
        m, l, o = QUESTIONS["3.5"](**inputs)
        return m, l[:, None], o

    assert "shape (1, 1), expected (1,). (Number 2 of 3.)" in told("3.5", turned_sum)


def test_a_renamed_parameter_is_told_to_keep_its_name():
    def guided(uncond, cond, scale):
        return uncond + scale * (cond - uncond)

    got = verdict(sheet(2).by_name["2.1"], guided, 0)
    assert got.kind == "error" and "'w'" in got.hint and "keep the names" in got.hint


def test_what_is_nearly_right_is_told_so():
    task = sheet(4).tasks[0]
    got = verdict(task, lambda **inputs: 1.0005 * task.answer(**inputs), 0)
    assert not got and "nearly right" in got.hint and "1 times" not in got.hint


def test_a_list_where_a_tensor_is_expected_is_told_what_to_do():
    task = sheet(4).tasks[0]
    got = verdict(task, lambda **inputs: task.answer(**inputs).tolist(), 0)
    assert got.kind == "form" and "become a tensor" in got.hint


def test_tensors_of_different_shapes_where_one_is_expected_are_told_so():
    task = TASKS[0]
    got = verdict(task, lambda **inputs: [torch.zeros(2, 3), torch.zeros(1, 3)], 0)
    assert got.kind == "form" and "returns 2 things" in got.hint


@each_task
def test_parts_are_named_one_by_one(task):
    if task.parts:
        assert len(task.parts) == len(set(task.parts)) == len(task.expected(task.cases(0)[0]))


def test_a_hint_says_which_part_is_wrong_and_how():
    special_cases, jko_step = QUESTIONS["5.4"].answer, QUESTIONS["5.11"].answer

    def tripled(**inputs):
        alpha, sigma, g = special_cases(**inputs)
        return alpha, sigma, 3 * g

    got = said("5.4", tripled)
    assert got.hint.startswith("Right: alpha, sigma. Not right: g. Every number is 3 times what it should be.")
    assert got.numbers.startswith("For instance, g, number 1 of 1:")
    got = said("5.4", lambda **inputs: [*special_cases(**inputs)[:2], 0 * inputs["t"]])
    assert got.hint.startswith("Right: alpha, sigma. Not right: g. It is 0 everywhere")
    got = said("5.11", lambda **inputs: (jko_step(**inputs)[0], 0.7 + jko_step(**inputs)[1] ** 2))
    assert got.hint.startswith("Right: the mean. Not right: the variance. The numbers are not those of the formula")


def test_a_loss_whose_gradient_cannot_be_taken_is_told_why():
    def per_sample(energy, x):
        return energy(x)

    def freed(critic, real, fake, gamma):
        real.requires_grad_()
        logits = critic(real)
        torch.autograd.grad(logits.sum(), real)
        return logits.mean()

    got = said("5.10", per_sample)
    assert got.kind == "form" and "expected ()" in got.hint
    got = said("5.9", freed)
    assert got.kind == "error" and "on the way back from the loss that it returns" in got.hint
    got = said("5.8", lambda z_e, codes, beta: z_e)
    assert got.kind == "error" and "it is to return two things: z and the loss" in got.hint
