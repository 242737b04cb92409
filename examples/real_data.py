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
# # Real data, with caveats
#
# Two data sets that many have analysed. They show the workflow and its doubts; neither is a
# discovery. The model files say why these columns were taken as proxies and what other choices give.

# %%
import os

import matplotlib.pyplot as plt

import pymc_mte as mte

# %matplotlib inline
DRAWS = int(os.environ.get("REAL_DATA_DRAWS", "500"))  # lowered when this file is tested
plt.rcParams["figure.dpi"] = 70

nhefs = mte.load_model("gallery:nhefs")
nhefs

# %% [markdown]
# ## 1. NHEFS: quitting smoking and weight gain
#
# 1,566 smokers; the outcome is the change of weight in kg over eleven years. The published effect,
# standardised over measured confounders, is 3.5 kg (2.6 to 4.5). Nothing measured is adjusted for
# here: the two sides' proxies stand in for a hidden class.
#
# ### What can be learnt

# %%
found = mte.identify(nhefs, nhefs.data_path)
for line in found.lines():
    print(line)

# %% [markdown]
# **Caveat 1.** No column is a clean proxy. Education and age are tied by birth cohort; age may change
# weight directly. Every other way of giving the proxies their sides gives another answer:

# %%
mte.plot_role_splits(found.splits)

# %% [markdown]
# ### The answers

# %%
moments = mte.estimate(nhefs, n_boot=200)
posterior = mte.sample(nhefs, start=moments, draws=DRAWS, tune=DRAWS, chains=2, progressbar=False)
table = mte.compare(posterior, moments)
mte.plot_comparison(posterior, moments, table=table)

# %% [markdown]
# **Caveat 2.** With these roles three methods agree on the average, but the classes are not told apart
# by their effects: the intervals of the class effects overlap, and the test of equal effects does not
# reject.

# %%
print(f"test of equal effects: p = {moments.attrs['equal_effects_p']:.2f}")
mte.plot_effect_mixture(posterior)

# %% [markdown]
# The classes differ in *who they are*: older people with less schooling against younger ones.

# %%
mte.plot_classes(posterior)

# %% [markdown]
# **Caveat 3.** Does the model fit? Of 32 bars that hold 90% of simulated data sets, about 3 would miss
# by chance; here it is about 5.

# %%
mte.plot_predictive(posterior)

# %% [markdown]
# ## 2. LaLonde: a training programme with survey controls
#
# 185 trainees, and 15,992 people of a survey who are unlike them. The naive difference of earnings is
# −8,498 dollars; the experiment that the trainees come from gave +1,794 (standard error 633).

# %%
lalonde = mte.load_model("gallery:lalonde")
answer = mte.estimate(lalonde, n_boot=200)
point = answer["estimate"].to_dataset()
print(f"ATT {float(point['att']):,.0f}, standard error {float(point['se_att']):,.0f}")
print(f"ATE {float(point['ate'])}")

# %% [markdown]
# **Caveat 4.** The ATE is refused. People with high earnings are almost never trainees, so what the
# training would do to them is extrapolated. The warnings say so:

# %%
for note in mte.identify(lalonde, lalonde.data_path, splits="none").notes:
    print("-", note)

# %% [markdown]
# **Caveat 5.** The ATT lies near the experiment, but its standard error understates the doubt. Other
# bands of earnings gave about 700 to 2,700 and proxies from demographics −2,100 to 11,900 (the model
# file lists them). A reader of the standard error alone would not know. Report such ranges beside the
# answer.
