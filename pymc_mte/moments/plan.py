"""Which slices of the data are mixtures of products: the plan of the moment route. NumPy only."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, islice
from math import prod

from pymc_mte.coefficients import refuse_linear
from pymc_mte.errors import ModelError
from pymc_mte.model import CausalModel
from pymc_mte.modelfile import need_model
from pymc_mte.moments.product import groupings

MAX_RUNS = 256
"""Most levels that the variables conditioned on may have together."""

MAX_SUBSETS = 20_000
"""Most sets of variables of one size that are tried as the ones conditioned on."""

MAX_BLOCK_CELLS = 512
"""Most cells that the joint table of one block may have."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One set of variables to condition on, and what it makes independent.

    Attributes
    ----------
    conditions : tuple of str
        Variables conditioned on; every joint level of theirs is one run.
    blocks : tuple of tuple of str
        Groups of the other variables, independent of each other given the class and the conditions.
    boundaries : tuple of tuple of str
        The conditions that each block depends on. Two runs that agree on them share the block's
        distributions, which is how the classes of different runs are matched.
    """

    conditions: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]
    boundaries: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        """Return one line."""
        given = ", ".join(self.conditions) or "nothing"
        blocks = " | ".join("{" + ", ".join(block) + "}" for block in self.blocks)
        return f"given {given}: {blocks}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan:
    """How the moment route takes a mixture of networks apart.

    Attributes
    ----------
    model : CausalModel
        The graph.
    families : tuple of Family
        The first one gives the answer; the others check it, and serve unzipping, which needs every
        variable in a block of some family.

    Notes
    -----
    Prints as text.
    """

    model: CausalModel
    families: tuple[Family, ...]

    @cached_property
    def n_runs(self) -> tuple[int, ...]:
        """Number of runs of each family."""
        return tuple(prod(self.model.size(v) for v in f.conditions) for f in self.families)

    def groups(self, family: Family) -> tuple[tuple[str, ...], ...]:
        """Three groups of variables whose joint table separates the classes: the most even ones.

        The data choose among the groupings of a family; this one is for reports.
        """
        blocks = [b for b in family.blocks if any(self.model.variables[v].latent for v in b)]
        sizes = [prod(self.model.size(v) for v in block) for block in blocks]
        found = groupings(sizes, self.model.classes)[0]
        return tuple(tuple(v for i in sorted(group) for v in blocks[i]) for group in found)

    def __str__(self) -> str:
        """Return the plan as text, one family per line."""
        k = self.model.classes
        if not self.families:
            return f"no plan: no slice of the data is a product of three groups that can separate {k} classes"
        lines = [f"a mixture of {k} classes, solved in runs and put together:"]
        for family, runs in zip(self.families, self.n_runs, strict=True):
            lines.append(f"- {family} ({runs} run{'s' if runs > 1 else ''})")
            for block, boundary in zip(family.blocks, family.boundaries, strict=True):
                if boundary:
                    lines.append(f"    {{{', '.join(block)}}} depends on {', '.join(boundary)}")
        return "\n".join(lines)

    __repr__ = __str__


def plan(model: CausalModel) -> Plan:
    """Plan how moments identify a mixture of products or of networks.

    Conditioning on a few variables cuts the graph into blocks that are independent within a class,
    so that every slice of the data is a mixture of products. The classes of two slices are matched
    on blocks that do not depend on what differs between the slices.

    Parameters
    ----------
    model : CausalModel
        The graph. Continuous variables, which have no children, are left out.

    Returns
    -------
    Plan
        Inspectable; without families when no slices do, and then only the likelihood answers.

    Raises
    ------
    ModelError
        If the model has one class, so that there is nothing to take apart.

    Examples
    --------
    >>> names = "abcde"
    >>> chain = CausalModel(
    ...     classes=2,
    ...     variables={
    ...         v: {"family": "bernoulli", "parents": [names[i - 1]] if i else []}
    ...         for i, v in enumerate(names)
    ...     },
    ... )
    >>> print(plan(chain).families[0])
    given b, d: {a} | {c} | {e}
    """
    need_model("plan", model)
    refuse_linear(model, "a plan")
    if model.classes == 1:
        raise ModelError("a plan takes classes apart, and this model has classes = 1")
    names, boundary = model.discrete_variables, _moral(model)
    families: list[Family] = []
    missing = set(names)
    for size in range(len(names) - 2):
        subsets = islice(combinations(names, size), MAX_SUBSETS)
        found = [f for given in subsets if (f := _family(model, boundary, given)) is not None]
        for family in sorted(found, key=lambda f: _cost(model, f)):
            gained = missing - set(family.conditions)
            if gained or not families:
                families.append(family)
                missing -= gained
        if not missing:
            break
    families.sort(key=lambda f: _cost(model, f))
    return Plan(model=model, families=tuple(families))


def _moral(model: CausalModel) -> dict[str, set[str]]:
    """Neighbours in the moral graph of the discrete variables: parents, children, co-parents."""
    out: dict[str, set[str]] = {v: set() for v in model.discrete_variables}
    for v in out:
        clique = (*model.variables[v].parents, v)
        for a, b in combinations(clique, 2):
            out[a].add(b)
            out[b].add(a)
    return out


def _family(model: CausalModel, boundary: dict[str, set[str]], given: tuple[str, ...]) -> Family | None:
    """Condition on some variables, if that makes solvable slices that shared distributions connect."""
    if prod(model.size(v) for v in given) > MAX_RUNS:
        return None
    blocks = _components(model.discrete_variables, boundary, set(given))
    sizes = [prod(model.size(v) for v in block) for block in blocks]
    if len(blocks) < 3 or max(sizes) > MAX_BLOCK_CELLS:
        return None
    boundaries = tuple(tuple(w for w in given if any(w in boundary[v] for v in b)) for b in blocks)
    telling = [i for i, block in enumerate(blocks) if any(model.variables[v].latent for v in block)]
    connected = all(any(w not in boundaries[i] for i in telling) for w in given)
    if not connected or not _can_group(tuple(sorted(sizes[i] for i in telling)), model.classes):
        return None
    return Family(conditions=given, blocks=blocks, boundaries=boundaries)


@lru_cache
def _can_group(sizes: tuple[int, ...], classes: int) -> bool:
    return bool(groupings(sizes, classes))


def _components(
    names: tuple[str, ...], boundary: dict[str, set[str]], given: set[str]
) -> tuple[tuple[str, ...], ...]:
    """Find the connected parts of the moral graph once the conditions are cut out."""
    left, out = [v for v in names if v not in given], []
    while left:
        part, queue = set(), [left[0]]
        while queue:
            v = queue.pop()
            if v not in part:
                part.add(v)
                queue += boundary[v] - given
        out.append(tuple(v for v in names if v in part))
        left = [v for v in left if v not in part]
    return tuple(out)


def _cost(model: CausalModel, family: Family) -> tuple[float, ...]:
    """Few runs first, for each gets its share of the rows; then blocks that separate classes well."""
    runs = prod(model.size(v) for v in family.conditions)
    sizes = sorted(prod(model.size(v) for v in block) for block in family.blocks)
    need = 2 * model.classes + 2
    rank = sum(min(model.classes, s) for s in sizes)
    return (runs, -min(rank, need), -len(sizes) if len(sizes) < 2 * model.classes else 0, max(sizes))
