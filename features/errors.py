"""The errors a user can meet.

NextbestError
├── InputError      wrong usage or wrong input: exit code 2, nothing was written
│   ├── BankDataError   the bank data directory breaks rules: carries every problem found
│   ├── NotBuilt        a command needs features that were never built
│   └── NoSuchModel     the registry has no such model (an ArtefactError too: serving degrades)
├── ArtefactError   a model artefact is damaged or does not fit these features
├── StoreUnavailable  an online store on a server does not answer
└── GateRefused     a gate said no: exit code 3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.problems import Problem


class NextbestError(Exception):
    """Base of everything raised on purpose; its text is meant for the person at the terminal."""

    exit_code = 1


class InputError(NextbestError):
    """Wrong usage or input. The text names the rule, the value and the next step."""

    exit_code = 2


class BankDataError(InputError):
    """A bank data directory that breaks rules of the input format."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class NotBuilt(InputError):
    """There are no features in this home yet."""


class ArtefactError(NextbestError):
    """A model artefact that is damaged, or was trained on other feature rows than these."""


class StoreUnavailable(NextbestError):
    """An online store on a server does not answer. Nothing is known of any customer then, consent least of all."""


class NoSuchModel(ArtefactError, InputError):
    """A model was asked for by a name, alias, version or run that the registry does not know."""


class GateRefused(NextbestError):
    """A gate refused; the text says which rule and by how much."""

    exit_code = 3
