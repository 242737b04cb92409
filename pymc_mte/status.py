"""Statuses: what the data made impossible or doubtful, each with its advice."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Status(StrEnum):
    """Outcome of a step; the name is stable, the value is the advice."""

    OK = "Nothing to report."
    CONSTANT_COLUMN = (
        "The column never varies, so it carries no information about the class. "
        "It is not used as a proxy; choose another one."
    )
    CONSTANT_OUTCOME = (
        "The outcome never varies, so nothing about effects or classes can be learnt from it. "
        "Check the column."
    )
    HEAP = (
        "Many rows have exactly this number, and a density has no bound where a class shrinks to it: a class "
        "may be found that is nothing but the heap, and chains that fall into it stay there. Round the "
        "variable (`grid=`: the probability of a bin has a bound), take a hurdle for zeros, or a family with "
        "levels."
    )
    EMPTY_ARM = (
        "No row has this treatment arm, so nothing about it can be estimated. "
        "Remove the level from the model or collect data for it."
    )
    NO_VARIATION = (
        "The rows do not vary here: a level of a linear parent that no row has, or a number that is the same "
        "in all rows. Nothing is learnt of its coefficients: they follow from the form of the model alone, "
        "and no interval widens for that. Do not predict elsewhere; take the level or the column out of the "
        "model, or collect data."
    )
    CLASSES_BY_PRIOR = (
        "The priors differ between classes, so classes bear the prior's numbers: the first value of a prior "
        "is of class 0. They are not sorted by effect, and chains keep to the order of the classes that "
        "fits the priors best. Where another order fits nearly as well, give one prior for all classes."
    )
    REPEATED_TERMS = (
        "These columns are linear combinations of each other, so their effects cannot be told apart. The "
        "coefficients shown share the effect in the smallest way, and no interval widens for that; averages "
        "over the rows do not suffer. Leave a column out to read the coefficients of the others."
    )
    CENTRE_OUTSIDE = (
        "The stated centre of a linear parent lies far outside its values. Means and tables of its children "
        "are meant at the centre, so default priors, which are on the scale of the rows, fight the slope. "
        "Leave the centre out (the mean of the rows is taken), state one among the values, or state the "
        "children's priors."
    )
    EMPTY_ARM_IN_STRATUM = (
        "No row of this stratum has this treatment arm, so nothing can be averaged over the strata. "
        "Merge the stratum with one like it, or leave its rows out and say so."
    )
    FEW_ROWS = (
        "An arm has few rows for so many covariates and proxy features: what is left of the proxies given "
        "the covariates is mostly noise. Use fewer covariates or merge rare ones."
    )
    BRIDGE_INSTEAD = (
        "Averages only: an arm lacks positivity, so classes were not estimated. "
        "Ask for a class-level method by its name to see them all the same."
    )
    EFFECTS_VARY_WITHIN_CLASSES = (
        "The effect of a class differs between strata, so the class averages hide part of what varies: "
        "read `stratum_effect`; `effect_sd` and `weight_harmed` count strata and classes together."
    )
    ROWS_DROPPED = (
        "Rows with missing values were left out. If missingness depends on the class or the "
        "outcome, every answer is shifted; compare with a model of complete columns."
    )
    MISSING_SUMMED = (
        "Missing values were summed out of the likelihood. This assumes that they are missing at random: "
        "given what was observed, whether a value is missing does not depend on the value or the class."
    )
    WEIGHTED_LIKELIHOOD = (
        "Sampling weights enter as powers of each row's likelihood, scaled to the effective number of rows. "
        "That is no exact posterior: its centre follows the population, its width is approximate."
    )
    SHARES_ONLY = (
        "The counts are not whole numbers, so they are shares and carry no sampling error; nothing "
        "was resampled. Pass counts of rows to get standard errors."
    )
    NOT_CHECKED = (
        "One chain cannot disagree with itself, so convergence was not checked. Run at least two chains."
    )
    FEATURES_DROPPED = (
        "Some proxy features repeat others and were left out; the proxies carry fewer "
        "directions than their levels suggest."
    )
    TOO_FEW_FEATURES = (
        "The proxies of one side have fewer distinguishable values than the model has classes. "
        "Add a proxy on that side or use fewer classes."
    )
    WEAK_PROXIES = (
        "The proxies cannot be told from noise in the direction that the last class needs. "
        "Use proxies that depend more on the class, more rows, or fewer classes."
    )
    MORE_DIRECTIONS = (
        "The proxies of the two sides share more than the model's classes explain: there are more "
        "classes, or two proxies depend on each other directly. Compare more classes, or drop a proxy."
    )
    FEWER_EFFECTS = (
        "The data tell apart fewer effects than the model has classes. Classes with one effect are one "
        "causal group, which is no fault: read `causal_groups`. method='pencil' and 'prony' need a "
        "different effect in every class."
    )
    GROUPS_DIFFER = (
        "The moments of the effect and the merged class effects count different numbers of effects. "
        "Either may lack power; trust the differences that both find."
    )
    DIRECT_DEPENDENCE = (
        "The proxies of the two sides determine each other, which a class does not do: one is made "
        "from the other, or both from a third. Replace one of them."
    )
    REPLICATES_FAILED = (
        "Some resamples gave no answer (an arm or a level vanished, or the equations were singular); "
        "they are left out of the standard errors, which are too small for that reason."
    )
    UNBOUNDED_SET = (
        "A confidence set that allows for weak proxies has no finite ends: the data do not bound the "
        "average effect. Use stronger proxies or more rows."
    )
    MOMENTS_REJECTED = (
        "No average effect fits the bridge's moment equations: an assumption fails, such as the number "
        "of classes or an independence of the graph."
    )
    COVARIATES_ADJUSTED = (
        "These columns are partialled out linearly, which gives averages only: what the classes do "
        "given covariates is not told apart by moments. For classes, list discrete ones as strata."
    )
    ASSUMPTION_REJECTED = (
        "The data contradict an independence that the answers rest on. Draw the edge that it forbids if "
        "the subject matter allows one, drop or move the proxy concerned, or try another number of classes."
    )
    SPLITS_DISAGREE = (
        "Other roles of the proxies give another average effect, by more than sampling error. Not all "
        "roles can be right: defend the ones you chose by subject matter, or report the range."
    )
    POSITIVITY = (
        "At least one class almost never gets this arm, so its outcome there is extrapolated. "
        "Do not use averages over everybody; the effect among those who got the arm may still hold."
    )
    COMPLEX_ROOTS = (
        "The moment equations have no real solution for these data; the nearest real one is "
        "returned. Use more rows, stronger proxies or fewer classes."
    )
    SINGULAR = (
        "The moment equations cannot be solved: the classes are not separated by the proxies or "
        "by the outcome. Use stronger proxies or fewer classes."
    )
    WEIGHT_OUTSIDE = (
        "A class weight lies outside [0, 1]: sampling error or a violated assumption. "
        "Prefer the posterior or method='polished', and check the graph."
    )
    EFFECT_OUTSIDE = (
        "A class mean lies outside the range of the outcome: sampling error or a violated "
        "assumption. Prefer the posterior or method='polished', and check the graph."
    )
    CLASSES_TIED = (
        "Two classes differ by less than two standard errors in their effects, so the order of "
        "the classes is arbitrary. Read the label-free quantities first."
    )
    AMBIGUOUS_CLASSES = (
        "The classes cannot be told apart from one resample to the next, so class-level answers mix "
        "them up. Use label-free quantities (averages, effect SD), fewer classes or stronger proxies."
    )
    INTERRUPTED = (
        "Sampling was stopped early, and the draws so far are cut to equal chains. They are sound where the "
        "checks pass; finish a stored run with `resume`."
    )
    APPROXIMATION = (
        "These draws come from a normal approximation, not from the posterior: intervals may be off, above "
        "all near 0 and 1 and with several modes. Confirm what matters with sampler='nutpie'."
    )
    DIVERGENCES = (
        "The sampler met regions that it could not follow. Raise target_accept, or use a simpler "
        "model; the posterior may miss a part."
    )
    NOT_MIXED = (
        "The chains do not agree after alignment. Draw longer, or treat the class-level answers as "
        "weakly identified: several explanations of the data may fit alike."
    )
    CHAINS_APART = (
        "A chain's mean lies far from that of all chains: they found different answers, and the pooled "
        "interval only lists them. Draw longer; if it stays, several explanations fit alike, so use stronger "
        "proxies or fewer classes."
    )
    PRIOR_DOMINATED = (
        "The graph identifies these, but these rows add little to the prior: the posterior is hardly "
        "narrower, or moves with the prior more than with the data. Do not read it as a finding: get more "
        "rows or stronger proxies, and see how far another prior (`priors=`) moves it."
    )
    SEVERAL_MODES = (
        "Several explanations of the data fit about equally, and the chains could not move from one to "
        "another. All were sampled; their draws are mixed in proportion to the weights named here, and the "
        "group `modes` describes each. Report them side by side, prefer label-free quantities, and look for "
        "data that tell them apart."
    )
    MODES_UNWEIGHTED = (
        "Several explanations of the data fit about equally, the chains could not move from one to another, "
        "and how much each weighs could not be computed, because the prior treats the classes differently, "
        "or the draws are too few. They only list the explanations: draw more, use the same prior for all "
        "classes, or sampler='smc'."
    )
    LABEL_SWITCHING = (
        "Classes change places inside chains, so class-level answers mix them up: the classes are "
        "weakly identified. Read label-free quantities only."
    )
    CLUSTERS_IGNORED = (
        "The posterior treats rows as independent, although they come in clusters: its intervals are "
        "too narrow. The moment estimates resample whole clusters; trust their standard errors."
    )
    NOT_CONVERGED = (
        "The iterations stopped before they settled; the likelihood is flat. "
        "Treat the class-level answers as weakly identified."
    )
    WEAK_DESIGN = (
        "The design says too little about so many classes: their sampling errors are as large as what "
        "tells them apart. Take more draws per row, more variables or fewer classes; more rows help slowly."
    )
    RUNS_LOST = (
        "Slices of the data that are too thin or do not separate the classes were left out of the moment "
        "estimate, whose tables then rest on the rest of the rows. Prefer method='polished'."
    )
    MISFIT = (
        "The fitted table differs from the observed one by more than chance: the graph lacks an edge, or "
        "there are more classes. Check the graph before the number of classes is raised."
    )
    OTHER_CLASSES = (
        "The data speak for another number of classes. Compare the models; the number is an assumption "
        "that only you can make."
    )
    SECOND_OPTIMUM = (
        "Another optimum of the likelihood fits almost as well, with other classes. Report both, or use "
        "label-free quantities."
    )
    NO_PLAN = (
        "No slice of the data is a product of three groups that separate the classes, so moments give no "
        "start and no check; the likelihood was climbed from random starts alone."
    )
    PROBABILITY_OUTSIDE = (
        "A probability from moments lies outside [0, 1]: sampling error or a violated assumption. "
        "Prefer method='polished', which cannot leave it."
    )
    OVERLAP = (
        "Some class almost never gets this value where others do, so what would happen to it is "
        "extrapolated. Ask for another value, or for the classes that do get it."
    )
    EXCLUSION_ASSUMED = (
        "The shares rest on the assumption that no target forces a certain value of each variable. A "
        "perfect fit is no evidence for it; without it each share may be anywhere within its bounds."
    )
    EXCLUSION_UNCLEAR = (
        "Another choice of the value that no target forces fits almost as well: the variable is hardly "
        "ever forced, or the data cannot tell. Compare the targets under the other choice."
    )
    TARGETS_UNCLEAR = (
        "Other sets of targets explain the rows about as well. Shares and intervals are averaged over them; "
        "see inclusion_probability. Collect more rows, or list the possible targets in interventions.targets."
    )
    RARE_BASE = (
        "The untouched network has values or parents' values that (almost) never occur, so targets "
        "seen only there rest on the prior of its tables. Collect more rows of the untouched system."
    )
    MECHANISM_MISFIT = (
        "Rows that left this variable alone do not follow its mechanism: an intervention changed the "
        "mechanism without forcing a value, an edge is wrong, or the base rows come from another system. "
        "Do not trust targets at or below it."
    )
    NOT_SEPARABLE = (
        "The targets' distributions coincide on these rows, so their shares cannot be told apart. "
        "List fewer candidate targets, or collect more rows."
    )
    TOO_FEW_DRAWS = (
        "So few draws per row have too few moments to tell so many classes apart, however many rows there "
        "are. Take more draws per row or fewer classes."
    )
    NO_MOMENT_METHOD = (
        "The graph does not satisfy the independences that a moment method needs; "
        "only likelihood answers are available."
    )
    MEASUREMENT_NOT_IDENTIFIED = (
        "Without the outcome the likelihood does not fix the classes: other class weights and tables fit "
        "alike, so the prior decides them, and every effect and average rests on them. Intervals need not "
        "show it. Take the joint posterior (measurement_first=False), which learns the classes from the "
        "outcome too, or add proxies."
    )
    CLASS_MEANS_UNRESOLVED = (
        "The rows here do not tell the outcome of each class: there are none, or the class probabilities do "
        "not vary enough from one pattern of proxies to another. Effects and averages that need it are not "
        "a number. Collect rows with other values of the proxies, add proxies, or take the joint posterior "
        "(measurement_first=False), whose prior fills the gap."
    )
    NO_OVERLAP = (
        "The covariates (almost) determine who gets this arm, so nobody like these people got another one, "
        "and what it would have done to them follows from the form of the model alone. No number of rows "
        "helps. Take the covariate out if it is no confounder (a copy or a consequence of the treatment), or "
        "keep the people whose covariates all arms have."
    )
    PROXY_FROM_COVARIATES = (
        "This proxy is (almost) a linear function of the covariates, so given them it carries nothing of the "
        "class, and the class found with it is a slice of the covariates. Drop it as a proxy, or drop the "
        "covariates that give it."
    )
    FEWER_ROWS_THAN_PARAMETERS = (
        "Rows are fewer than free parameters, so the data do not fix the answers: priors decide a posterior, "
        "chance decides moments. Do not read averages or classes as findings. Collect more rows, or use "
        "fewer classes, levels, proxies or covariates."
    )
    FEW_GROUPS = (
        "So few groups do not show how much groups differ: the spread of class weights over groups follows "
        "its prior. Leave `group` out, or collect rows of more groups."
    )
    SINGLE_ROW_GROUPS = (
        "Most groups have one row, and one row does not show how its group differs: the class weights of "
        "these groups and the spread over groups follow their priors. Merge groups, or leave `group` out."
    )


@dataclass(frozen=True, slots=True)
class Note:
    """A status together with where it arose.

    Attributes
    ----------
    status : Status
        What happened, with its advice.
    where : str
        The variable, arm or quantity concerned.
    detail : str
        The measured facts, as a short phrase.
    """

    status: Status
    where: str = ""
    detail: str = ""

    def within(self, part: str) -> "Note":
        """Say it of one part of the data."""
        return replace(self, where=f"{self.where}, {part}") if part else self

    def __str__(self) -> str:
        """Return one readable sentence."""
        head = self.status.name.replace("_", " ").lower()
        place = f" ({self.where})" if self.where else ""
        facts = f": {self.detail}." if self.detail else "."
        return f"{head}{place}{facts} {self.status.value}"


def dump_notes(notes: Iterable[Note]) -> str:
    """Write notes as JSON text, the form kept in attributes."""
    return json.dumps([[note.status.name, note.where, note.detail] for note in notes])


def load_notes(text: str) -> list[Note]:
    """Read notes written by `dump_notes`."""
    return [Note(Status[name], where, detail) for name, where, detail in json.loads(text)]
