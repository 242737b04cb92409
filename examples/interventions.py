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
# # Unknown interventions
#
# A knockout experiment should change one gene and may hit others too (off-target effects). The
# rows are then a mixture: a known network, left alone in some rows, with some variables forced to
# a value in others. Which interventions occur, and how often?
#
# The data are simulated, so the truth is known.

# %%
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np

import pymc_mte as mte

# %matplotlib inline
plt.rcParams["figure.dpi"] = 70

model = mte.load_model("gallery:unknown_interventions")
rows = mte.simulate(model, 5_000, rng=1)
truth = mte.truth(model)["target_weight"].to_series()
truth

# %% [markdown]
# Each line is a *target*: what is forced. `{}` stands for rows that were left alone.
#
# ## 1. What can be learnt?

# %%
print(mte.identify(model, rows))

# %% [markdown]
# ## 2. Targets and their shares
#
# `target_weight` holds all targets that were found; `selected` are those that the data speak for
# (Bayes factor above 1). The 90% intervals are from bootstrap resamples.

# %%
found = mte.estimate(model, rows, n_boot=40)
point = found["estimate"].to_dataset()
draws = found["posterior"]["target_weight"]
chosen = point["target"].values[point["selected"].values]
low, high = np.quantile(draws.sel(target=chosen), [0.05, 0.95], axis=(0, 1))

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
place = {"a": (1, 2), "b": (0, 1), "c": (2, 1), "d": (1, 0)}
forced = (point["forced"].sel(target=chosen) >= 0).any("target")
colour = ["C1" if bool(forced.sel(variable=v)) else "0.8" for v in model.variables]
nx.draw(model.graph, place, ax=left, with_labels=True, node_color=colour, node_size=900)
left.set_title("orange: forced by some target")
height = np.arange(len(chosen))
right.hlines(height, low, high, color="C0", linewidth=3, label="90% interval")
right.plot(point["target_weight"].sel(target=chosen), height, "o", color="C0", label="share")
right.plot([truth.get(t, 0.0) for t in chosen], height, "k|", markersize=14, label="truth")
right.set_yticks(height, chosen)
right.set(xlabel="share of the rows", xlim=(-0.01, None))
right.legend()
plt.show()

# %% [markdown]
# All four true targets are found, and one too many: `d=1`, with 2% of the rows, does not occur. A Bayes
# factor above 1 is a low bar. Its rows are taken from `{}`, whose interval ends just below the truth:
# intervals hold the targets as found, so those of searched targets are too short, as said above.

# %% [markdown]
# ## 3. What if exclusion fails?
#
# All of this assumes that each variable has a value that no target forces. Below, both values of
# `a` are forced, and the answer is wrong although it fits perfectly. The bounds do not use the
# assumption: they contain the truth, and they are wide. A target whose lower bound is positive is
# established without it; here there is none.

# %%
violated = mte.load_model("gallery:violated_exclusion")
wrong = mte.estimate(violated, mte.population(violated))["estimate"].to_dataset()
right_shares = mte.truth(violated)["target_weight"].to_series()
found_shares = wrong["target_weight"].to_series()
names = list(dict.fromkeys([*right_shares.index, *found_shares.index]))
bounds = wrong[["weight_lower", "weight_upper"]].sel(candidate=names)

figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
height = np.arange(len(names))
axes.hlines(height, bounds["weight_lower"], bounds["weight_upper"], color="0.7", linewidth=8, label="bounds")
axes.plot([found_shares.get(t, 0.0) for t in names], height, "o", label="share found, exclusion assumed")
axes.plot([right_shares.get(t, 0.0) for t in names], height, "k|", markersize=14, label="truth")
axes.set_yticks(height, names)
axes.set(xlabel="share of the rows", xlim=(-0.02, 1), ylim=(-0.5, len(names) - 0.5))
figure.legend(loc="outside upper center", ncols=3, frameon=False)
plt.show()

# %% [markdown]
# ## 4. The untouched network from rows of its own
#
# Where the parameters of the network are not known, pass rows of the untouched system. `mte.sample`
# and `mte.fit` take them too, and give the posterior of shares and tables together. `selected_weight`
# are the shares of a fit with the selected targets alone; `d=1` is among them again.

# %%
control = mte.simulate(mte.base_model(model), 5_000, rng=2)
again = mte.estimate(model, rows, base=control, n_boot=0)["estimate"].to_dataset()
again[["selected", "selected_weight"]].to_dataframe().query("selected")
