# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
# %% [markdown]
# # Mixtures without proxies
#
# A hidden class may stand behind *every* variable, so that no proxy and no adjustment set
# exists. The classes can still be told apart where the graph leaves enough edges out: slices of
# the data are then mixtures of independent draws.
#
# First a chain, simulated, so that the truth is known. Then seven pathologists: are they
# interchangeable?

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import pymc_mte as mte

# %matplotlib inline
DRAWS = int(os.environ.get("MIXTURES_DRAWS", "500"))  # lowered when this file is tested
N_NULL = 19 if DRAWS >= 500 else 2
plt.rcParams["figure.dpi"] = 60

# %% [markdown]
# ## 1. An effect that nothing observed identifies
#
# `v1 -> v2 -> ... -> v7`, and a hidden class with two levels is a parent of all seven. What would
# `v2` do to `v3`? Comparing means gives the wrong sign. Adjusting for `v1`, the only observed cause
# of `v2`, leaves almost no effect.

# %%
chain = mte.load_model("gallery:chain7")
rows = mte.simulate(chain, 10_000, rng=1)
frame = rows.to_dataframe()
naive = frame.groupby("v2")["v3"].mean().diff().iloc[-1]
within = frame.groupby(["v1", "v2"])["v3"].mean().unstack("v2")
adjusted = (within[1] - within[0]) @ frame["v1"].value_counts(normalize=True).sort_index()
exact = float(mte.truth(chain)["ate"])
print(f"means {naive:+.3f}, adjusted for v1 {adjusted:+.3f}, truth {exact:+.3f}")

# %% [markdown]
# With the class it is identified. Given `v2` and `v5` the rest falls into three blocks that are
# independent within a class, and three such blocks tell two classes apart.

# %%
mte.identify(chain, rows)

# %%
mte.plot_plan(chain)

# %% [markdown]
# ## 2. Moments and likelihood
#
# `network` solves each run, matches the classes of the runs and puts the tables together.
# `polished`, the default, climbs the likelihood from there and from random starts. `do` turns the
# tables of either into an intervention.

# %%
answers = {}
for method in ("network", "polished"):
    found = mte.estimate(chain, rows, method=method, n_boot=200)
    effect = mte.do(found, {"v2": 1}, "v3")["mean"] - mte.do(found, {"v2": 0}, "v3")["mean"]
    answers[method] = effect.values.ravel()  # one value per bootstrap replicate

# %% [markdown]
# ## 3. The posterior
#
# The same graph as a Bayesian model, started from the polished estimate.

# %%
posterior = mte.sample(chain, rows, start=found, draws=DRAWS, tune=300, chains=2, progressbar=False)
effect = mte.do(posterior, {"v2": 1}, "v3")["mean"] - mte.do(posterior, {"v2": 0}, "v3")["mean"]
answers["posterior"] = effect.values.ravel()
low, high = np.array([np.quantile(v, [0.05, 0.95]) for v in answers.values()]).T
table = pd.DataFrame({"lower": low, "upper": high}, index=list(answers))
table.insert(0, "mean", [v.mean() for v in answers.values()])
table.round(3)

# %%
figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
for place, (_, row) in enumerate(table.iterrows()):
    axes.plot([row["lower"], row["upper"]], [place, place], "C0", linewidth=3)
    axes.plot(row["mean"], place, "C0o")
axes.axvline(exact, color="k", label="truth")
axes.axvline(naive, color="C1", linestyle="--", label="difference of means")
axes.axvline(adjusted, color="C1", linestyle=":", label="adjusted for v1")
axes.set_yticks(range(len(table)), table.index)
axes.set(xlabel="effect of v2 on v3, 90% intervals", ylim=(-0.5, len(table) - 0.5))
figure.legend(loc="outside upper center", ncols=3, frameon=False)
plt.show()

# %% [markdown]
# ## 4. Repeated draws: are the raters interchangeable?
#
# Seven pathologists judged 118 slides. If they were interchangeable, only the number of yes would
# matter: each slide is then a coin, tossed seven times, and its class chooses the coin. If they
# differ, each rater has a coin of its own per class: a mixture of products.

# %%
raters = mte.load_model("gallery:carcinoma")
alike = mte.load_model("gallery:carcinoma_exchangeable")
mte.plot_plan(alike)

# %%
different = mte.estimate(raters, n_boot=0)["estimate"]
same = mte.estimate(alike, n_boot=0)["estimate"]
yes = pd.DataFrame({v: different[f"p_{v}"][:, 1].values for v in raters.variables})
yes.insert(0, "all alike", same["p_yes"].values)
yes.insert(0, "weight", different["class_weight"].values)
yes.round(2)

# %% [markdown]
# In the class in the middle the raters disagree: some say yes nearly always, some never. The test
# compares maximised likelihoods. Many probabilities end at 0 or 1, so the chi-squared law
# does not hold; the same gain is computed in samples of raters who *are* interchangeable.


# %%
def best(model: mte.CausalModel, table: object) -> float:
    """Maximised log-likelihood, from the checks of an estimate."""
    checks = mte.estimate(model, table, n_boot=0)["checks"].to_dataset().to_dataframe()
    return float(checks.set_index("check").loc["log-likelihood", "value"])


def gain(cells: pd.DataFrame) -> float:
    """Twice the log-likelihood that seven different raters gain over interchangeable ones."""
    total = cells.drop(columns="count").sum(axis=1) - 7  # levels are 1 and 2
    sums = mte.tabulate({"yes": total, "count": cells["count"]}, alike, count="count")
    orders = np.log([1, 7, 21, 35, 35, 21, 7, 1])[total] @ cells["count"]
    own = mte.tabulate(cells, raters, count="count")
    return 2 * (best(raters, own) - (best(alike, sums) - orders))


observed = gain(pd.read_csv(raters.data_path))
rng = np.random.default_rng(3)
null = []
for _ in range(N_NULL):
    kind = rng.choice(3, size=118, p=same["class_weight"].values / same["class_weight"].values.sum())
    votes = 1 + (rng.random((118, 7)) < same["p_yes"].values[kind][:, None])
    drawn = pd.DataFrame(votes, columns=list(raters.variables))
    null.append(gain(drawn.value_counts().reset_index(name="count")))
print(f"observed gain {observed:.0f}")
print(f"interchangeable raters: {np.mean(null):.0f} on average, {max(null):.0f} at most")

# %% [markdown]
# No sample of interchangeable raters comes near the observed gain, so the raters differ: a model
# of one repeated coin would be wrong here, however well its 2K − 1 draws identify it.
