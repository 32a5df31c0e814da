"""The rule by which claims are judged, as data: `configs/claims.yaml`, fixed before test panels are played."""

from typing import Annotated, Literal

import pydantic
import yaml

from reflect_rl.core import paths
from reflect_rl.core.profiles import Loader, Profile, VariantName, errors_in_one_line

Share = Annotated[float, pydantic.Field(gt=0, lt=1)]


class Entry(pydantic.BaseModel, extra="forbid", frozen=True, coerce_numbers_to_str=True):
    """One comparison of a claim, and the episodes on which it is made."""

    claim: str  #: one of `Rule.claims`
    comparison: tuple[VariantName, VariantName]  #: better and worse, as the claim has it
    regime: str  #: of a profile; `""` where the environment has none
    setting: str  #: the task family
    horizon: pydantic.PositiveInt
    split: Literal["train", "validation", "test"]
    decoding: Literal["sampled", "greedy"]

    @property
    def panel(self) -> str:
        """The episodes on which it is made, in words."""
        return f"{self.setting}, {self.horizon} steps, {self.split}, {self.decoding}"


class Contrast(pydantic.BaseModel, extra="forbid", frozen=True, coerce_numbers_to_str=True):
    """What is shown side by side, each minus the first, and not judged: test success of variants, which may differ in regime."""

    title: str
    setting: str
    horizon: pydantic.PositiveInt
    of: Annotated[tuple[tuple[str, VariantName], ...], pydantic.Field(min_length=2)]  #: (regime, variant)


class Rule(pydantic.BaseModel, extra="forbid", frozen=True, coerce_numbers_to_str=True):
    """What is compared, and what decides."""

    alpha: Share = 0.05  #: of p after Holm's adjustment for all comparisons that are tested
    margin: Share = 0.05  #: difference in success that does not matter
    ceiling: Share = 0.95  #: share of the best possible success above which an arm has nothing left to gain
    floor: Share = 0.05  #: success below which an arm has not learned the task
    seeds: pydantic.PositiveInt = 5  #: trained runs of each arm without which there is no verdict
    seeds_of_regime: dict[str, dict[str, pydantic.PositiveInt]] = {}  #: instead of `seeds`, by environment and regime
    prompted_episodes: pydantic.PositiveInt = 100  #: with fewer a prompted model does not enter
    claims: dict[str, str] = {}  #: sentences by number, or by a name where a claim is not the paper's
    comparisons: dict[str, tuple[Entry, ...]] = {}  #: by environment
    contrasts: dict[str, tuple[Contrast, ...]] = {}  #: by environment

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> "Rule":
        for env, entries in self.comparisons.items():
            for i, entry in enumerate(entries):
                place = f"comparisons.{env}.{i}"
                if entry.claim not in self.claims:
                    raise ValueError(f"{place}.claim: unknown {entry.claim!r}; choose one of: {', '.join(self.claims)}")
                if entry.comparison[0] == entry.comparison[1]:
                    raise ValueError(f"{place}.comparison: {entry.comparison[0]} with itself; name two variants")
                if entry in entries[:i]:
                    raise ValueError(f"{place}: a comparison that is listed before; list each once")
        return self

    @property
    def in_words(self) -> str:
        """The claims, and what a verdict means, as lists in Markdown; `claims.py` has the order in which verdicts apply."""
        points, others = f"{100 * self.margin:.0f} points", f"{self.seeds} seeds"
        meanings = {
            "reproduced": f"better, with p below {self.alpha:g} after Holm's adjustment for all comparisons of the profile",
            "not reproduced": "worse, by the same measure",
            "equivalent": f"the 95% interval lies within {points} of 0",
            "at the ceiling": f"both reach {self.ceiling:.0%} of the best possible success, so that nothing is left to show",
            "undecided": f"fewer than {others} (or what configs/claims.yaml asks of the regime), both below {self.floor:.0%}, or "
            "neither of the above; *a decision needs* as many seeds as would decide in four of five cases, after the strictest of Holm's "
            "adjustments, if difference and spread are what they seem",
        }
        claims = [f"- {claim}. {sentence}" for claim, sentence in self.claims.items()]
        return "\n".join(
            ["Claims:", "", *claims, "", "Verdicts:", "", *(f"- *{v}*: {why}" for v, why in meanings.items())]
        )


def read_rule() -> Rule:
    """The project's rule; without comparisons where it has no `configs/claims.yaml`.

    Raises ReflectRLError, with the place, where something in that file is not as `Rule` has it.
    """
    path = paths.claims()
    with errors_in_one_line(f"{path.parent.name}/{path.name}"):
        return Rule.model_validate((yaml.load(path.read_bytes(), Loader) or {}) if path.exists() else {})


def shown_alone(profile: Profile, env: str) -> list[str]:
    """The regimes that have figures and tables of their own: the first and those in which the rule compares something, lest
    a map of many regimes fills the folder; where it names none of them, all."""
    first, *others = profile.regimes_of(env)
    compared = {entry.regime for entry in read_rule().comparisons.get(env, ())}
    return [first, *([each for each in others if each in compared] or others)]
