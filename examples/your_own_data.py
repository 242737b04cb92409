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
# # Your own data, and how to choose proxies
#
# From a table to a model file to the first report. The table here is made up, so that the right
# choice is known: a hidden *need* decides who enrols in a tutoring programme and what tutoring does.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import pymc_mte as mte

# %matplotlib inline
plt.rcParams["figure.dpi"] = 70

rng = np.random.default_rng(4)
n = 6_000
need = rng.random(n) < 0.4  # hidden: nobody recorded it
near = rng.random(n) < np.where(need, 0.3, 0.7)
absent = rng.random(n) < np.where(need, 0.75, 0.25)
marks = rng.random(n) < np.where(need, 0.2, 0.65)
tutored = rng.random(n) < 0.2 + 0.25 * near + 0.3 * need
effect = np.where(need, 0.35, -0.05)
passed = rng.random(n) < np.where(need, 0.3, 0.75) + effect * tutored
mood = rng.random(n) < 0.2 + 0.5 * tutored  # asked AFTER the programme
table = pd.DataFrame(
    {"near": near, "absent": absent, "marks": marks, "tutored": tutored, "passed": passed, "mood": mood}
)
table = table.astype(int)
table.head()

# %% [markdown]
# ## 1. Ask three questions of every column
#
# | column | when measured | would setting it change the outcome? | so |
# |---|---|---|---|
# | `near` (lives near the tutor) | before | no, distance teaches nothing | treatment proxy |
# | `absent` (days missed last year) | before | past absence: no | outcome proxy |
# | `marks` (of last year) | before | past marks: no | outcome proxy |
# | `mood` (asked in June) | **after** | — | no proxy: the programme changes it |
#
# ## 2. Write the model
#
# `pymc-mte init rows.csv` writes such a file for your table; you fill in the roles. It is a text to
# be argued about, and nothing is run by reading it.

# %%
TEXT = """
name = "tutoring"
summary = "Tutoring and passing; need is hidden."
classes = 2

[roles]
treatment = "tutored"
outcome = "passed"
treatment_proxies = ["near"]
outcome_proxies = ["absent", "marks"]

[variables.near]
family = "bernoulli"
[variables.absent]
family = "bernoulli"
[variables.marks]
family = "bernoulli"
[variables.tutored]
family = "bernoulli"
parents = ["near"]
[variables.passed]
family = "bernoulli"
"""
model = mte.CausalModel.from_toml(TEXT)
mte.plot_graph(model)

# %% [markdown]
# ## 3. Ask what can be learnt

# %%
found = mte.identify(model, table)
mte.plot_proxies(found)

# %%
print(found)

# %% [markdown]
# ## 4. Estimate
#
# The naive difference mixes the effect with who enrols.

# %%
means = table.groupby("tutored")["passed"].mean()
naive = means[1] - means[0]
answer = mte.estimate(model, table)
point = answer["estimate"].to_dataset()
true_average = float(effect.mean())
adjusted, error = float(point["ate"]), float(point["se_ate"])
print(f"naive {naive:.3f}; adjusted {adjusted:.3f} (standard error {error:.3f}); true {true_average:.3f}")

# %%
mte.plot_effect_mixture(answer)

# %% [markdown]
# ## 5. What a wrong proxy does
#
# `mood` was asked after the programme, which changes it. As an outcome proxy it breaks the assumption
# that the treatment never causes such a proxy. The answer moves, and a check objects:

# %%
wrong = mte.CausalModel.from_toml(
    TEXT.replace('outcome_proxies = ["absent", "marks"]', 'outcome_proxies = ["marks", "mood"]').replace(
        "absent", "mood"
    )
)
bad = mte.estimate(wrong, table, n_boot=100)["estimate"].to_dataset()
print(f"with mood: {float(bad['ate']):.3f} (standard error {float(bad['se_ate']):.3f})")
checks = mte.identify(wrong, table).checks
objections = checks.loc[checks["verdict"].isin(["doubt", "fail"]), ["check", "where", "p", "verdict"]]
objections

# %% [markdown]
# Not every wrong proxy is found so: two proxies with the same wrong edge agree with each other. What
# protects is the argument in the table of section 1.
#
# ## 6. What if an edge is there after all?
#
# Suppose last year's marks do touch passing. How far does the average move?

# %%
moved = mte.sensitivity(model, table, edge=("marks", "passed"), strength=[0, 0.25, 0.5])
moved.loc["ate", ["low", "high", "low_90", "high_90"]]

# %% [markdown]
# ## 7. Keep it
#
# Tables go to pandas, Markdown and LaTeX; results to one file; everything to one page. `share_safe`
# leaves out what fewer than five people share.

# %%
with TemporaryDirectory() as folder:
    path = mte.save(answer, Path(folder) / "tutoring.nc")
    again = mte.load(path)
print(again["estimate"]["effect"].to_dataframe().to_string())
