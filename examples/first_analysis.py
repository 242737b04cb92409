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
# # A first analysis
#
# A treatment helps some people and harms others, and nobody recorded who is who. We look for
# the hidden classes twice, by moments and by a Bayesian latent-class model, and compare the two
# answers.
#
# The data are simulated, so the truth is known: two classes of equal size, effects −3/4 and
# +3/4. The average effect is zero and says nothing about either class.

# %%
import os
from itertools import product

import arviz as az
import matplotlib.pyplot as plt
import numpy as np

import pymc_mte as mte

# %matplotlib inline
DRAWS = int(os.environ.get("FIRST_ANALYSIS_DRAWS", "1000"))  # lowered when this file is tested
plt.rcParams["figure.dpi"] = 70

model = mte.load_model("gallery:level3")
rows = mte.simulate(model, 5_000, rng=1)
rows.to_dataframe().head()

# %% [markdown]
# `latent_class` is the hidden class. No estimator looks at it: it is not a variable of the
# model.
#
# The naive difference of means is near zero, and by the symmetry of this design so is the true
# average. Neither says that half of the people gain and the other half lose.

# %%
naive = float(rows["y"][rows["t"] == 1].mean() - rows["y"][rows["t"] == 0].mean())
print(f"naive {naive:.2f}, true average {float(mte.truth(model)['ate']):.2f}")

# %% [markdown]
# ## 1. Identify: what can be answered?
#
# Ask before estimating. The report names the independences that the graph grants, the answers
# that rest on them, and how strong the proxies are in each arm.

# %%
data = mte.tabulate(rows, model)  # distinct rows and their counts
found = mte.identify(model, data)
found

# %% [markdown]
# ## 2. Estimate: moments, no likelihood and no prior
#
# `spectral` solves the moment equations. Standard errors and intervals come from 400 bootstrap
# replicates. They stand in the group `posterior`, laid out as draws are, so ArviZ reads them
# without conversion. (R-hat and effective sample size mean nothing for replicates, so only the
# statistics are asked for.)

# %%
moments = mte.estimate(model, data, method="spectral")
NAMES = ["ate", "att", "effect_sd", "class_weight", "effect"]
INTERVAL = {"ci_prob": 0.9, "ci_kind": "eti"}
az.summary(moments, var_names=NAMES, kind="stats", **INTERVAL)

# %% [markdown]
# ## 3. Sample: the posterior
#
# `build_model` returns a plain `pm.Model`, and `sample` runs it: four chains from the best
# mode, with jitter, classes matched across chains.

# %%
posterior = mte.sample(model, data, start=moments, draws=DRAWS, progressbar=False)
az.summary(posterior, var_names=NAMES, **INTERVAL)

# %% [markdown]
# ## 4. Compare
#
# Both answers use the same rows. `z` is their difference in standard errors of that difference,
# from a paired bootstrap.

# %%
table = mte.compare(posterior, moments)
table[["mean", "sd", "spectral", "spectral_se", "bridge", "bridge_se", "z", "verdict"]]

# %%
mte.plot_comparison(posterior, moments, table=table)

# %% [markdown]
# The truth, for once, is known. The effect on the treated is negative: who is harmed gets the
# treatment more often.

# %%
mte.truth(model)[["ate", "att", "effect", "class_weight"]].to_dataframe()

# %% [markdown]
# ArviZ's own forest plots, on the estimate and on the posterior:

# %%
_ = az.plot_forest(moments, var_names=["ate", "effect"], combined=True)

# %%
_ = az.plot_forest(posterior, var_names=["ate", "effect"], combined=True)

# %% [markdown]
# ## 5. How many classes?
#
# The number of classes is an assumption. Leave-one-row-out predictive accuracy (LOO) compares
# numbers of classes. It is computed per pattern and weighted by counts, so it costs the same
# for a million rows.
#
# A binary proxy on each side carries two classes and no more. With three the likelihood still
# has a maximum, but the third class explains nothing new: its LOO is about that of two, and its
# class-level answers are mostly prior. Take the smallest number that predicts as well as the
# best.

# %%
fits = {"K = 2": posterior}
for number in (1, 3):
    fits[f"K = {number}"] = mte.sample(model.with_classes(number), rows, draws=DRAWS, progressbar=False)
mte.compare_models(fits)

# %% [markdown]
# Mixing is part of the answer too: a class too many shows as chains that disagree.

# %%
for name, tree in sorted(fits.items()):
    rhat = az.rhat(tree["posterior"].to_dataset()[["ate", "effect"]])
    print(f"{name}: R-hat of the ATE {float(rhat['ate']):.3f}, of the effects {rhat['effect'].values}")

# %% [markdown]
# ## 6. Predictive checks by pattern
#
# `prior_predictive` and `posterior_predictive` hold 100 simulated tables each: `counts` over
# all combinations of the discrete variables, the last variable fastest. A pattern that lies
# outside its posterior predictive interval is one that the model cannot explain. The prior
# predictive should be wide: it shows what was believed before the data.

# %%
names = model.discrete_variables
sizes = [len(model.variables[name].labels) for name in names]
patterns = posterior["observed_data"].to_dataset()
observed = np.zeros(np.prod(sizes))
cell = np.ravel_multi_index([patterns[v].values for v in names], sizes)
np.add.at(observed, cell, patterns["count"].values)
labels = ["".join(map(str, c)) for c in product(*(model.variables[v].labels for v in names))]


def interval(group: str) -> np.ndarray:
    """90% interval of the predicted count of every cell: (2, cell)."""
    counts = posterior[group]["counts"]
    return counts.quantile([0.05, 0.95], dim=("chain", "draw")).values


figure, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
place = np.arange(len(labels))
before, after = interval("prior_predictive"), interval("posterior_predictive")
axes.vlines(place, *before, color="0.8", linewidth=8, label="prior predictive, 90%")
axes.vlines(place, *after, color="C0", linewidth=3, label="posterior predictive, 90%")
axes.plot(place, observed, "k.", label="observed")
axes.set_xticks(place, labels, rotation=90)
axes.set(xlabel=f"pattern ({', '.join(names)})", ylabel="rows")
figure.legend(loc="outside upper center", ncols=3, frameon=False)
plt.show()

# %%
low, high = after
inside = np.mean((observed >= low) & (observed <= high))
print(f"{inside:.0%} of the patterns lie in their 90% interval")

# %% [markdown]
# ## 7. The same on real data
#
# Quitting smoking and weight gain (NHEFS). The published standardised effect is 3.5 kg (2.6 to
# 4.5), the naive difference 2.5 kg. None of its columns is a clean proxy, so this shows the
# workflow and is no discovery; the model file says why these columns were taken and what other
# choices give.
#
# `mte.fit(nhefs)` runs everything at once. Here only the checks and the moments, which take
# seconds:

# %%
nhefs = mte.load_model("gallery:nhefs")
print(mte.identify(nhefs, nhefs.data_path))

# %%
az.summary(mte.estimate(nhefs), var_names=["ate", "ate_bridge", "effect"], kind="stats", **INTERVAL)
