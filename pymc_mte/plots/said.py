"""What figures share when they speak: accepted input, lists in words, names shown as they are."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pymc_mte.errors import ModelError
from pymc_mte.identify.identification import Identification
from pymc_mte.model import CausalModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LISTED = 3
"""Names of a longer list that are shown."""


def model_in(figure: str, thing: object) -> CausalModel:
    """Return the model that a model or an identification is about.

    Raises
    ------
    ModelError
        If it is neither.
    """
    if isinstance(thing, Identification):
        return thing.model
    if isinstance(thing, CausalModel):
        return thing
    raise ModelError(
        f"{figure}: a CausalModel or the answer of `identify` is wanted, got {type(thing).__name__}; "
        "read a model file with `load_model` first"
    )


def need_kind(figure: str, thing: object, kind: type, made_by: str) -> None:
    """Refuse what a figure cannot draw.

    Raises
    ------
    ModelError
        If the thing is of another kind.
    """
    if not isinstance(thing, kind):
        raise ModelError(f"{figure}: the answer of `{made_by}` is wanted, got {type(thing).__name__}")


def several(names: Iterable[str]) -> str:
    """List names, the later ones of a long list as a number."""
    listed = list(names)
    more = len(listed) - LISTED
    shown = listed if more <= 1 else listed[:LISTED]
    return ", ".join(shown) + (f" and {more} more" if more > 1 else "")


def plain_text(figure: "Figure") -> None:
    """Show every text as it is: a dollar sign in a variable's name starts no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
