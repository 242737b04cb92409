from .baselines import baselines as baselines
from .bayes.attach import add_to_model as add_to_model
from .bayes.build import build_model as build_model
from .bayes.compiled import CompiledPosterior as CompiledPosterior, compile as compile
from .bayes.evidence import log_evidence as log_evidence
from .bayes.merge import merge as merge
from .bayes.sample import sample as sample
from .bayes.store import resume as resume
from .calibration import calibrate as calibrate
from .class_choice import ClassChoice as ClassChoice, choose_classes as choose_classes
from .compare import compare as compare
from .data import tabulate as tabulate
from .errors import (
    DataError as DataError,
    ModelError as ModelError,
    MTEError as MTEError,
    RefusedError as RefusedError,
)
from .fit import Fit as Fit, fit as fit
from .fitcheck import bivariate_residuals as bivariate_residuals, pattern_residuals as pattern_residuals
from .identify.identification import Identification as Identification, identify as identify
from .identify.ranges import functional_ranges as functional_ranges
from .identify.sensitivity import sensitivity as sensitivity
from .identify.splits import role_splits as role_splits
from .intervene import do as do
from .interventions import Interventions as Interventions, base_model as base_model
from .ladder import ladder as ladder
from .model import CausalModel as CausalModel
from .model_comparison import compare_models as compare_models, loo as loo
from .modelfile import gallery_names as gallery_names, load_model as load_model
from .moments.estimate import estimate as estimate
from .moments.plan import Plan as Plan, plan as plan
from .plots.baselines import plot_baselines as plot_baselines
from .plots.calibration import plot_calibration as plot_calibration
from .plots.classes import plot_classes as plot_classes
from .plots.classes_choice import plot_class_choice as plot_class_choice
from .plots.comparison import plot_comparison as plot_comparison
from .plots.curves import plot_curves as plot_curves
from .plots.effects import plot_effects as plot_effects
from .plots.graph import plot_graph as plot_graph
from .plots.hierarchy import plot_hierarchy as plot_hierarchy
from .plots.mixture import plot_effect_mixture as plot_effect_mixture
from .plots.plan import plot_plan as plot_plan
from .plots.predictive import plot_predictive as plot_predictive, plot_prior as plot_prior
from .plots.proxies import plot_proxies as plot_proxies
from .plots.splits import plot_role_splits as plot_role_splits
from .plots.units import plot_unit_effects as plot_unit_effects
from .policy import policy as policy
from .predict import predict as predict
from .results import save as save
from .simulate import population as population, simulate as simulate, truth as truth
from .store import load as load
from .variable import DataSource as DataSource, Variable as Variable

__version__: str
