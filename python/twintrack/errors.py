"""InputError: what is wrong with an input, in parts that programs can read and one wording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """An argument or a file that breaks a rule.

    Its text names the place first: ``raters[1][3, 4, 5] is 2; labels must be 0 or 1``, or
    ``CASE.nii.gz: voxel (3, 4, 5) is 2; labels must be 0 or 1`` where the file is known.

    Parameters
    ----------
    wrong
        What is wrong. After a value it is the rule that the value breaks ("labels must be 0 or
        1"), otherwise it goes on from the argument or file ("has 3 axes").
    argument
        Name of the argument, as a call would spell it: ``raters[1]``.
    file
        The file, or a text that says where in one; in texts it stands in place of the argument.
    case
        Name of the case, or its number among the cases of one call.
    voxel
        Index of the voxel in the argument or file.
    value
        The value that breaks the rule.
    advice
        What to do, unless `wrong` says it.

    Attributes
    ----------
    wrong, argument, file, case, voxel, value, advice
        As given; None for what does not apply.
    """

    def __init__(
        self,
        wrong: str,
        *,
        argument: str | None = None,
        file: Path | str | None = None,
        case: str | int | None = None,
        voxel: Sequence[int] | None = None,
        value: Any = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.argument = argument
        self.file = file
        self.case = case
        self.voxel: tuple[int, ...] | None = None if voxel is None else tuple(int(i) for i in voxel)
        self.value = value
        self.advice = advice

    def __str__(self) -> str:
        case = "" if self.case is None else f"case {self.case!r}: "
        text = self.message
        return f"{case}{text}" if self.file is None else f"{case}{self.file}: {text}"

    @property
    def message(self) -> str:
        """The text without case and file, for tables that have columns for them."""
        if self.file is None:
            where = "" if self.voxel is None else str(list(self.voxel))
            subject = f"{self.argument or ''}{where} ".lstrip()
        else:
            subject = "" if self.voxel is None else f"voxel {self.voxel} "
        if self.value is not None:
            subject += f"is {_number(self.value)}; "
        return subject + self.wrong + ("" if self.advice is None else f"; {self.advice}")

    @classmethod
    def of(cls, error: Exception, **parts: Any) -> InputError:
        """Return an error of this class with further parts, such as the file that was read.

        Parts that are known stay: a file that is named is nearer to the cause.
        """
        if not isinstance(error, cls):
            return cls(str(error) or type(error).__name__, **parts)
        known = {name: part for name, part in error._parts().items() if part is not None}
        return cls(**{**parts, **known})

    def replaced(self, **parts: Any) -> InputError:
        """Return the same error with other parts, such as the file that an argument is from."""
        return InputError(**{**self._parts(), **parts})

    def moved(self, by: Sequence[int]) -> InputError:
        """Return the same error with its voxel moved, from its place in a part to one in a whole.

        `by` has a step along each axis. An error without a voxel stays as it is.
        """
        if self.voxel is None:
            return self
        voxel = [at + step for at, step in zip(self.voxel, by, strict=True)]
        return self.replaced(voxel=voxel)

    def _parts(self) -> dict[str, Any]:
        names = ("wrong", "argument", "file", "case", "voxel", "value", "advice")
        return {name: getattr(self, name) for name in names}

    def __reduce__(self) -> tuple[Any, ...]:
        # By keywords: an exception's own way would give back `wrong` alone.
        return _restored, (self._parts(),)


def _restored(parts: dict[str, Any]) -> InputError:
    return InputError(**parts)


def _number(value: Any) -> str:
    """Return a value as text; 9 digits tell any two float32 apart."""
    return f"{value:.9g}" if isinstance(value, float) else repr(value)
