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
# # When the average misleads
#
# A drug helps half of the people and harms the other half by as much. The average effect is zero, and
# nobody is like the average. The hidden kind of person also decides who takes the drug, so the naive
# comparison is wrong too.

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd

import pymc_mte as mte

# %matplotlib inline
DRAWS = int(os.environ.get("AVERAGE_MISLEADS_DRAWS", "500"))  # lowered when this file is tested
plt.rcParams["figure.dpi"] = 70

model = mte.load_model("gallery:level3")
rows = mte.simulate(model, 4_000, rng=2)
model

# %% [markdown]
# ## 1. Three answers that look alike
#
# The naive difference, the average effect by moments that allow for the hidden class, and the truth.

# %%
frame = rows.to_dataframe()
means = frame.groupby("t")["y"].mean()
naive = means[1] - means[0]
moments = mte.estimate(model, rows)
adjusted = float(moments["estimate"]["ate"])
print(f"naive {naive:.3f}, adjusted {adjusted:.3f}, true {float(mte.truth(model)['ate']):.3f}")

# %% [markdown]
# All near zero. A report that ends here says that the drug does nothing.
#
# ## 2. The classes behind it

# %%
posterior = mte.sample(model, rows, start=moments, draws=DRAWS, chains=2, progressbar=False)
mte.plot_effect_mixture(posterior)

# %% [markdown]
# In the simulation the two groups are equally large; one loses .75, the other gains .75. These rows
# say: 54% lose .71 and 46% gain .82. (The 90% interval of the share just misses one half, as one
# interval in ten does.) The dashed line, the average, describes nobody.

# %%
mte.plot_classes(posterior)

# %% [markdown]
# The effect on the treated is not the average effect: who is harmed takes the drug more often.

# %%
names = ["ate", "att", "effect_sd", "effect[class 0]", "effect[class 1]"]
table = mte.compare(posterior, moments)
table.loc[names, ["mean", "lower", "upper", "spectral", "bridge", "verdict"]]

# %% [markdown]
# ## 3. Grouping by what is seen does not separate the classes
#
# The proxies show the class, but each alone is noisy. Effects within groups of equal proxies mix both
# classes.

# %%
groups = frame.groupby(["z", "x", "t"])["y"].mean().unstack("t")
seen = pd.DataFrame({"effect in the group": groups[1] - groups[0], "rows": frame.groupby(["z", "x"]).size()})
seen

# %% [markdown]
# Even the groups where both proxies agree show smaller effects than the classes have, because a part
# of each group belongs to the other class. And in every group the treated and the untreated differ in
# their mix of classes. Other methods that group by the proxies meet the same limit. Only an oracle that
# sees the class gets past it, and the mixture:

# %%
mte.plot_baselines(mte.baselines(model, rows), moments, truth=mte.truth(model))

# %% [markdown]
# With the optional extra (`pip install 'pymc-mte[forest]'`) a causal forest joins this figure. Its
# groups cannot differ more than the groups of equal proxies above: the proxies are all it sees.
#
# ## 4. What is known about single people
#
# Class probabilities given everything observed of a row, times the class effects:

# %%
mte.plot_unit_effects(posterior)

# %% [markdown]
# For a middle part the class stays open. A class effect is an average within a hidden group, never
# the effect on one person.
#
# ## 5. Is the difference real?
#
# Before the classes are believed: does a test tell their effects apart, and do moments and likelihood
# agree?

# %%
print(f"test of equal effects: p = {moments.attrs['equal_effects_p']:.2g}")
print(table.loc[names, "verdict"].to_string())
