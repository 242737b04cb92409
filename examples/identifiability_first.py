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
# # Identifiability first
#
# Before any estimate: which questions can the graph and the data answer at all? Four graphs that
# differ by one or two edges show how much one edge costs. Nothing here needs a sampler.

# %%
import matplotlib.pyplot as plt
import pandas as pd

import pymc_mte as mte

# %matplotlib inline
plt.rcParams["figure.dpi"] = 70

MODELS = {name: mte.load_model(f"gallery:{name}") for name in ("level1", "level2", "level3", "level4")}
MODELS["level3"]

# %% [markdown]
# ## 1. One edge, one level
#
# `z` is the treatment proxy, `x` the outcome proxy. Without an edge between the two sides everything
# is within reach of moments. With `z -> t` the class effects remain. With `x -> y` besides, only
# averages do.

# %%
rows = []
for name, model in MODELS.items():
    found = mte.identify(model)
    edges = ", ".join(f"{a} -> {b}" for a, b in model.graph.edges)
    answered = {key: found.identified.get(key, False) for key in ("ate", "effect", "class_weight")}
    rows.append({"model": name, "edges": edges, "level by moments": found.level} | answered)
levels = pd.DataFrame(rows).set_index("model")
levels

# %% [markdown]
# The last three columns say what the *likelihood* identifies: it may be more than moments reach, and
# never less.

# %%
mte.plot_hierarchy(MODELS["level4"])

# %%
mte.plot_graph(MODELS["level4"])

# %% [markdown]
# ## 2. What an unidentified answer looks like
#
# At level 4 many class effects fit the same data equally well. `functional_ranges` walks along all of
# them. The average effect has one value; the class effects have a range that no number of rows makes
# smaller. (`low_90` and `high_90` stay empty: these are the true parameters, so there is no sampling
# error to add.)

# %%
wide = MODELS["level4"]
data = mte.simulate(wide, 20_000, rng=1)
ranges = mte.functional_ranges(wide, wide.true_parameters())
ranges

# %% [markdown]
# ## 3. Identified is not enough: strength
#
# A graph may identify an answer that the rows hardly carry. The proxies' correlations in each arm
# must stand out from noise: two classes need one such correlation in every arm.

# %%
model = MODELS["level3"]
enough = mte.identify(model, mte.simulate(model, 5_000, rng=1))
mte.plot_proxies(enough)

# %% [markdown]
# The same model with 60 rows: the report says what these rows do not carry, and what to do about it.

# %%
few = mte.identify(model, mte.simulate(model, 60, rng=3))
for note in few.notes:
    print("-", note)

# %% [markdown]
# ## 4. Plan before data are paid for
#
# The likelihood's standard errors at the fitted parameters: now, with 2, 4 and 10 times the rows, and
# with one more proxy like `z` or like `x`.

# %%
enough.planning

# %% [markdown]
# ## 5. Are the assumptions in doubt?
#
# Some violations show in the data, many do not. Here `x` touches `y` inside a class (level 4), but
# the analyst draws level 3. No check objects: in this design the wrong graph fits perfectly. Only
# what is known of the subject protects here.

# %%
wrong = mte.identify(model, data)
wrong.checks.loc[
    wrong.checks["verdict"].isin(["doubt", "fail", "no power"]), ["check", "where", "p", "verdict"]
]

# %% [markdown]
# And what would change if such an edge were there, with a stated strength:

# %%
doubt = mte.sensitivity(model, mte.simulate(model, 5_000, rng=1), edge=("x", "y"), strength=[0, 0.25, 0.5])
doubt.loc["ate"]
