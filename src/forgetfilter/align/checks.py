"""What an answer has to pass before it becomes a row. The first check that fails gives the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forgetfilter.align import prompts, sandbox
from forgetfilter.align.prompts import Task
from forgetfilter.evaluate import judges
from forgetfilter.models.scorers import Scorer
from forgetfilter.unlearn.personal_data import Detector, detect
from forgetfilter.unlearn.replacements import degenerate


@dataclass(frozen=True, slots=True)
class Checked:
    """`passed`: the checks an answer passed, in order; `reason`: why it was rejected, "" where it was not."""

    passed: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Checker:
    """What checks need: who tells toxic from other text, and who finds personal data."""

    scorer: Scorer
    detectors: Sequence[Detector]  # of prose
    code_detectors: Sequence[Detector]  # of code, in which capitals are no names

    def answer(self, task: Task, text: str) -> Checked:
        """An answer as text: is it one, does it refuse where that is due and only there, is it clean?"""
        return _first_failing(
            {
                "answer": lambda: _no_answer(task, text),
                "refusal": lambda: _refusal(task, text),
                "toxicity": lambda: self._toxic(text),
                "personal data": lambda: self._personal(text, code=task.kind == "code"),
            }
        )

    def task(self, text: str, *, risky: bool) -> str:
        """Why a text that the model wrote is no task, "" where it may be one."""
        if not text or degenerate(text):
            return "no task"
        if judges.explain("", text)[0] == "refusal":
            return "refused"
        return (not risky and self._toxic(text)) or self._personal(text, code=False) or ""

    def _toxic(self, text: str) -> str | None:
        (score,) = self.scorer([text])
        if score is None:
            return "toxicity: cannot be judged"
        return f"toxicity: {score:.2f}" if score >= self.scorer.threshold else None

    def _personal(self, text: str, *, code: bool) -> str | None:
        kinds = sorted({span.kind for span in detect(text, self.code_detectors if code else self.detectors)})
        return f"personal data: {', '.join(kinds)}" if kinds else None


def tests(code: str, asserts: Sequence[str]) -> Checked:
    """Code that is run with its tests, in the sandbox."""
    if len(asserts) < prompts.FEWEST_TESTS:
        return Checked((), "tests: too few that call the function")
    ran = sandbox.run(code, "\n".join(asserts))
    return Checked(("tests",), "") if ran.passed else Checked((), f"tests: {ran.reason}")


def _no_answer(task: Task, text: str) -> str | None:
    if task.kind == "code":
        return None if prompts.defined(prompts.code_in(text)) else "no function in it"
    return "cut off" if not text else degenerate(text)


def _refusal(task: Task, text: str) -> str | None:
    if task.kind == "code":
        return None
    verdict, why = judges.explain(task.text, text)
    if verdict is None:
        return f"refusal: {why}"
    due = task.kind == "risky"
    if due == (verdict == "refusal"):
        return None
    return "refusal: does not decline" if due else "refusal: declines a harmless task"


def _first_failing(checks: dict[str, Callable[[], str | None]]) -> Checked:
    passed: list[str] = []
    for name, check in checks.items():
        if reason := check():
            return Checked(tuple(passed), reason)
        passed.append(name)
    return Checked(tuple(passed), "")
