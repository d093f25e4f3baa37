"""The question whether a key may be used, put to the user."""

from __future__ import annotations

from ..jobs.jobs import Done, Refused
from ..jobs.questions import Ask
from ..openssh import askpass


def ask(question: Ask, gone: tuple[int, ...]) -> Done | Refused:
    """The job of asking, for two minutes at most; `gone` as in Patience."""
    try:
        askpass.confirm(question.prompt, askpass.Patience(gone))
    except (askpass.CannotAsk, askpass.Unanswered) as error:
        return Refused.because(error)
    return Done()
