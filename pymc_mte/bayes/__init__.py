"""The Bayesian latent-class causal model: built as a plain PyMC model, the class summed out."""
