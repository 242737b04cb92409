"""The parts of a model description: variables, where the data are, answers from elsewhere."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pymc_mte.families import FAMILIES, Family
from pymc_mte.validation import MAX_LEVELS

Level = bool | int | float | str


class Part(BaseModel):
    """Part of a description: frozen, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Variable(Part):
    """One observed variable.

    Attributes
    ----------
    family : str
        With listed levels: ``bernoulli``, ``categorical``, ``ordinal``, ``binomial``. Numbers: ``normal``,
        ``student_t``; positive ones: ``gamma``, ``lognormal``; counts: ``poisson``,
        ``negative_binomial`` (variance mean + dispersion mean^2); times: ``weibull``,
        ``exponential``; zeros with a probability of their own: ``hurdle_`` and one of ``poisson``,
        ``negative_binomial``, ``gamma``, ``lognormal``.
    parents : tuple of str
        Observed parents with full tables, all discrete. The latent class is a parent too, unless ``latent``
        is off.
    linear_parents : tuple of str
        Observed parents of any family that shift the variable linearly, alike in every class: log-odds of
        levels, means of numbers, logs of positive means. A number enters by its distance from its ``centre``,
        listed levels by an indicator of each but the first, so that several add up without a table.
    levels : tuple, optional
        Values of a discrete variable; of an ordinal one from lowest to highest. A bernoulli variable
        may leave them out: 0/1, booleans or two strings in the data are then recognised.
    latent : bool
        Whether the variable's mechanism varies with the latent class.
    scale_parents : bool
        Whether the scale of a continuous variable varies with its parents too.
    trials : int, optional
        For a binomial variable: how often one mechanism was repeated; its levels are 0 to ``trials``.
    event : str, optional
        For a time: column that is 1 where the time was seen to its end and 0 where it was censored, that
        is, is only known to be longer. Censoring must not depend on the class given the parents.
    censor_at : float, optional
        For a time with an ``event``: when `simulate` censors.
    centre : float, optional
        For a number that is a linear parent: the value at which its children's other parameters are meant.
        The mean of the rows where it is left out; a model with a ``[truth]`` must say it.
    """

    family: str
    parents: tuple[str, ...] = ()
    linear_parents: tuple[str, ...] = ()
    levels: tuple[Level, ...] | None = Field(default=None)
    latent: bool = True
    scale_parents: bool = False
    trials: int | None = Field(default=None, ge=1, lt=MAX_LEVELS)
    event: str | None = None
    censor_at: float | None = Field(default=None, gt=0)
    centre: float | None = Field(default=None, allow_inf_nan=False)

    @property
    def spec(self) -> Family:
        """The family's table row."""
        return FAMILIES[self.family]

    @property
    def discrete(self) -> bool:
        """Whether the variable takes listed levels."""
        return self.spec.discrete

    @property
    def labels(self) -> tuple[Level, ...]:
        """Levels with the default filled in."""
        if self.trials is not None:
            return tuple(range(self.trials + 1))
        return self.levels if self.levels is not None else (0, 1)

    def axes(self, name: str) -> dict[str, tuple[str, ...]]:
        """Axes of every parameter of a variable of that name."""
        lead = ("class",) if self.latent else ()
        by_scope: dict[str, tuple[str, ...]] = {
            "table": (*lead, *self.parents, name),
            "location": (*lead, *self.parents),
            "scale": (*lead, *self.parents) if self.scale_parents else lead,
            "shared": (),
        }
        return {parameter: by_scope[kind.scope] for parameter, kind in self.spec.parameters.items()}

    @property
    def all_parents(self) -> tuple[str, ...]:
        """Parents with full tables, then linear ones."""
        return (*self.parents, *self.linear_parents)

    @model_validator(mode="after")
    def _check_centre(self) -> Self:
        if self.centre is not None and self.family in FAMILIES and self.discrete:
            raise ValueError(
                f"centre: a {self.family} variable has levels, used as indicators; remove the key"
            )
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is unknown; choose one of {', '.join(FAMILIES)}")
        if (self.family == "binomial") != (self.trials is not None):
            raise ValueError("trials: a binomial variable needs it, and no other family has it")
        if self.event is not None and not self.spec.censored:
            times = [name for name, family in FAMILIES.items() if family.censored]
            raise ValueError(f"event: only times have one ({', '.join(times)}), not {self.family}")
        if self.censor_at is not None and self.event is None:
            raise ValueError("censor_at: name the column that marks events too (event = ...)")
        if not self.discrete or self.family == "binomial":
            if self.levels is not None:
                raise ValueError(f"levels: a {self.family} variable has none; remove the key")
            return self
        if self.levels is None:
            if self.family in ("categorical", "ordinal"):
                article = "an" if self.family == "ordinal" else "a"
                raise ValueError(f"levels: {article} {self.family} variable must list its levels")
            return self
        if not 2 <= len(self.levels) <= MAX_LEVELS:
            raise ValueError(f"levels: between 2 and {MAX_LEVELS} are allowed, got {len(self.levels)}")
        if self.family == "bernoulli" and len(self.levels) != 2:
            raise ValueError(f"levels: a bernoulli variable has two, got {len(self.levels)}")
        if len(set(self.levels)) != len(self.levels):
            raise ValueError("levels: every level must be listed once (note that True equals 1)")
        return self


class DataSource(Part):
    """Where a model's rows are, and what to do with missing values.

    Attributes
    ----------
    file : str, optional
        CSV or Parquet file, relative to the model file and inside its folder.
    missing : {"error", "drop", "sum"}
        Refuse rows with missing values; leave them out and count them; or sum the missing values out
        of the likelihood, where no observed variable depends on them.
    count : str, optional
        Column that says how often a row occurred.
    """

    file: str | None = None
    missing: Literal["error", "drop", "sum"] = "error"
    count: str | None = None


class Published(Part):
    """An answer from elsewhere, shown beside ours and never used by an estimator."""

    value: float
    interval: tuple[float, float] | None = None
    se: float | None = None
    source: str
