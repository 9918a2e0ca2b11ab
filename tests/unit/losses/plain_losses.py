"""The objectives as plain loops over Python floats, from the numeric contract's formulas.

Written without looking at the library: `z[view][clip][concept]` are cosines, a pair is (a, b) with
teacher view a, student view b and a != b, and every pair and clip weighs the same.
"""

import math

Scores = list[list[list[float]]]


def softmax(row: list[float], temperature: float) -> list[float]:
    peak = max(row)
    powers = [math.exp((z - peak) / temperature) for z in row]
    total = sum(powers)
    return [power / total for power in powers]


def cross_entropy(p: list[float], q: list[float]) -> float:
    return -sum(a * math.log(b) for a, b in zip(p, q, strict=True) if a > 0)


def find_pairs(num_teacher: int, num_student: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(num_teacher) for b in range(num_student) if a != b]


def distillation(
    student: Scores, teacher: Scores, *, student_temperature: float, teacher_temperature: float
) -> float:
    values = []
    for a, b in find_pairs(len(teacher), len(student)):
        for clip in range(len(student[0])):
            p = softmax(teacher[a][clip], teacher_temperature)
            q = softmax(student[b][clip], student_temperature)
            values.append(cross_entropy(p, q))
    return sum(values) / len(values)


def link_up(link: list[list[float]] | None, p: list[float]) -> list[float]:
    if link is None:
        return p
    return [sum(g * x for g, x in zip(row, p, strict=True)) for row in link]


def alignment(
    student_category: Scores,
    student_description: Scores,
    teacher_category: Scores,
    teacher_description: Scores,
    *,
    link: list[list[float]] | None,
    student_temperature: float,
    teacher_temperature: float,
) -> float:
    values = []
    for a, b in find_pairs(len(teacher_category), len(student_category)):
        for clip in range(len(student_category[0])):
            p_teacher = softmax(teacher_category[a][clip], teacher_temperature)
            q_teacher = link_up(link, softmax(teacher_description[a][clip], teacher_temperature))
            p_student = softmax(student_category[b][clip], student_temperature)
            q_student = link_up(link, softmax(student_description[b][clip], student_temperature))
            values.append(
                0.5 * (cross_entropy(p_teacher, q_student) + cross_entropy(q_teacher, p_student))
            )
    return sum(values) / len(values)


def prior(student: Scores, *, student_temperature: float) -> float:
    num_concepts = len(student[0][0])
    rows = [softmax(clip, student_temperature) for view in student for clip in view]
    mean = [sum(row[k] for row in rows) / len(rows) for k in range(num_concepts)]
    return sum(p * math.log(p * num_concepts) for p in mean if p > 0)


def run_prior_means(steps: list[Scores], *, temperature: float, momentum: float) -> list[float]:
    """The prior of each step, whose mean prediction remembers the steps before."""
    values, running = [], None
    for student in steps:
        rows = [softmax(clip, temperature) for view in student for clip in view]
        mean = [sum(row[k] for row in rows) / len(rows) for k in range(len(rows[0]))]
        if running is not None:
            mean = [momentum * a + (1 - momentum) * b for a, b in zip(running, mean, strict=True)]
        running = mean
        values.append(sum(p * math.log(p * len(mean)) for p in mean if p > 0))
    return values


def run_centers(steps: list[Scores], *, momentum: float) -> list[list[float]]:
    """The center that each step's teacher scores are reduced by, and the one after the last."""
    num_concepts = len(steps[0][0][0])
    centers = [[0.0] * num_concepts]
    for teacher in steps:
        rows = [clip for view in teacher for clip in view]
        mean = [sum(row[k] for row in rows) / len(rows) for k in range(num_concepts)]
        centers.append(
            [momentum * a + (1 - momentum) * b for a, b in zip(centers[-1], mean, strict=True)]
        )
    return centers
