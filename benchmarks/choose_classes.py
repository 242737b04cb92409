"""How often `choose_classes` is right: three classes, one class, and two classes with an edge left out.

The designs were written down before the first run; the rule was not tuned on them.

Run: uv run python benchmarks/choose_classes.py [--runs 100] [--rows 5000] [--max-classes 4] [--sample]

With --sample posteriors are drawn too: which number stacking prefers, the mean stacking weights, and the root
mean squared error of the average effect stacked, of the recommended number, and of a single class.
"""

import argparse
import time
from collections import Counter

import numpy as np

import pymc_mte as mte
from pymc_mte.model import CausalModel


def one_class() -> CausalModel:
    """Write down one class whose proxies depend on nothing, with the graph z -> t -> y."""
    return _model(1, {}, [[0.3, 0.5, 0.7]], [[0.4, 0.6, 0.5]], [0.5], [[0.4, 0.6]])


def dependent_pair() -> tuple[CausalModel, CausalModel]:
    """Two classes in which x0 moves the log-odds of x1 by 1; the generator and the graph without the edge."""
    x1 = 1 / (1 + np.exp(-(np.array([[-1.0], [1.0]]) + np.array([-0.5, 0.5]))))
    z, x, t = [[0.2, 0.3, 0.25], [0.8, 0.7, 0.75]], [[0.2, 0.3, 0.3], [0.75, 0.7, 0.8]], [0.35, 0.65]
    y = [[0.3, 0.2], [0.4, 0.8]]
    return _model(2, {"x1": ("x0",)}, z, x, t, y, {"x1": x1.tolist()}), _model(2, {}, z, x, t, y)


def _model(
    classes: int,
    parents: dict[str, tuple[str, ...]],
    z: list[list[float]],
    x: list[list[float]],
    t: list[float],
    y: list[list[float]],
    replaced: dict[str, list[list[float]]] | None = None,
) -> CausalModel:
    truth: dict[str, object] = {"class_weight": np.full(classes, 1 / classes).tolist()}
    for side, table in (("z", z), ("x", x)):
        truth |= {f"{side}{j}": {"p": [row[j] for row in table]} for j in range(len(table[0]))}
    truth |= {"t": {"p": t}, "y": {"p": y}} | {n: {"p": p} for n, p in (replaced or {}).items()}
    names = [n for n in truth if n != "class_weight"]
    variables = {
        n: {"family": "bernoulli", "parents": ["t"] if n == "y" else list(parents.get(n, ()))} for n in names
    }
    return CausalModel(
        classes=classes,
        variables=variables,
        treatment="t",
        outcome="y",
        treatment_proxies=[n for n in names if n.startswith("z")],
        outcome_proxies=[n for n in names if n.startswith("x")],
        truth=truth,
    )


def main() -> None:
    """Count the answers on every design."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--max-classes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=500)
    parser.add_argument("--sample", action="store_true")
    options = parser.parse_args()
    three = mte.load_model("gallery:three_classes")
    one = one_class()
    generator, graph = dependent_pair()
    designs = {
        "three classes": (three, three, (3, None)),
        "one class": (one, one, (1, None)),
        "two classes, x0 -> x1 left out": (generator, graph, (2, ("x0", "x1"))),
    }
    for name, (source, fitted, expected) in designs.items():
        start, found = time.perf_counter(), Counter[tuple[int, tuple[str, str] | None]]()
        stacks, errors = [], []
        for run in range(options.runs):
            rows = mte.simulate(source, options.rows, rng=options.seed + run)
            frame = {n: rows[n].values for n in source.variables}
            choice = mte.choose_classes(
                fitted, frame, max_classes=options.max_classes, sample=options.sample, rng=run
            )
            found[choice.recommended, choice.dependence] += 1
            stacks.append(choice.table["weight"].to_numpy()[:-1].astype(float))
            errors.append(choice.table["ate"].loc[["stacked", choice.recommended, 1]].to_numpy(dtype=float))
        right = found[expected]
        took = (time.perf_counter() - start) / options.runs
        print(f"{name}: right in {right} of {options.runs}; {dict(found)}; {took:.1f} s each", flush=True)
        if options.sample:
            preferred = Counter(int(weight.argmax()) + 1 for weight in stacks)
            gap = np.array(errors) - float(mte.truth(source)["ate"])
            rmse = np.sqrt((gap**2).mean(axis=0)).round(4)
            print(f"  stacking prefers {dict(preferred)}, mean weights {np.mean(stacks, axis=0).round(2)}")
            print(f"  RMSE of the average effect stacked, recommended, one class: {rmse}", flush=True)


if __name__ == "__main__":
    main()
