"""All tables and figures of a profile, made from its raw results and written to their files."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pandas as pd
from matplotlib.figure import Figure

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get
from reflect_rl.report import comparisons, curves, film, maps, regimes, tables, watch
from reflect_rl.report.claims import COLUMNS, claims_table, counted, elsewhere, verdicts
from reflect_rl.report.forest import CAPTION, forest
from reflect_rl.report.protocol import made_on, protocol, protocols
from reflect_rl.report.raw import Results, collected
from reflect_rl.report.results import results
from reflect_rl.report.rule import read_rule, shown_alone
from reflect_rl.report.strata import strata_table
from reflect_rl.report.style import save

TITLES_OF_ALL = {  # tables that hold all environments of a profile
    "main": "Success by variant",
    "seeds": "How far seeds lie apart",
    "parts": "What RL and reflection each add",
    "runs": "Training runs",
    "budgets": "What each variant was given: distinct situations (of arms with reflections as many reflections), examples of the "
    "warm-up with repetitions, trained parameters, updates and steps of RL",
    "prompts": "Prompts of the policies in evaluation, in tokens",
    "claims": "The paper's claims, tested",
    "contributions": "What RL and reflections add: success on test tasks, sampled (that of advice alone: greedy), and differences in "
    "percentage points with their own 95% intervals; †: a claim is about it and is undecided",
    "contrasts": "Side by side, not judged: test success, sampled, with its 95% interval, and the difference from the first in "
    "percentage points with its own",
}
TITLES = {  # tables of one environment, beside those of success in each of its settings
    "online_rl": "Validation success before and after online RL",
    "verdicts": "Verdicts on the claims: difference in success in percentage points with its 95% interval, and under greedy decoding",
    "ablations": "Ablations: difference in test success",
    "reflector": "What the reflector says, by situation",
    "strata": "Success, and mean return, by what tasks can be sorted by",
}


@dataclass
class Products:
    """What is made of the raw results of an environment in a regime, by the names of the files without `Profile.stem`."""

    regime: str
    tables: dict[str, pd.DataFrame]  #: those of `TITLES_OF_ALL` and `TITLES`, `headline`, one for each further setting
    figures: dict[str, Figure]  #: what there is something to draw of
    #: those of `maps.CAPTIONS`, of all regimes of the environment; none where these have nothing to compare
    maps: dict[str, Figure] = field(default_factory=dict)
    claims: Figure | None = None  #: the claims of all environments, where something was compared


def products(profile: str, env: str, found: Results | None = None, regime: str = "") -> Products:
    """Everything that the raw results (by default what `results` reads) say of an environment in a regime (by default its
    first); nothing is written."""
    found = found or results(profile, env)
    of_all = _of_all(profile, found)
    made = _of_regime(profile, env, regime, found, of_all)
    return replace(made, maps=_maps(profile, env, found, of_all), claims=forest(of_all["claims"]))


def _of_all(profile: str, found: Results) -> dict[str, pd.DataFrame]:
    """The tables of `TITLES_OF_ALL`."""
    trained = found.training[["env", "regime"]].drop_duplicates().itertuples(index=False, name=None)
    horizons = {(env, regime): settings.load(profile, env, regime=regime).rl.horizon for env, regime in trained}
    main = tables.main_table(found.episodes, found.ceilings, tables.validation(found.training, horizons))
    parts = regimes.parts_table(found.episodes)
    claims = claims_table(found.episodes, found.ceilings)
    glances = {
        "contributions": regimes.contributions(main, parts, claims),
        "contrasts": regimes.contrasts(found.episodes),
    }
    return {
        "main": main,
        "seeds": tables.seed_table(found.episodes),
        "parts": parts,
        "runs": tables.ordered(found.runs, ["env", "regime", "variant", "seed"]),
        "budgets": tables.given(found.budgets),
        "prompts": tables.prompt_table(found.prompts),
        "claims": claims,
        **{name: table for name, table in glances.items() if len(table)},
    }


def _maps(profile: str, env: str, found: Results, of_all: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    """The figures of the regimes that differ in what reflections there are, or in one setting of `maps.ALONG`, alone."""
    names, own = regimes.comparable(profile, env), (of_all["main"], of_all["parts"], found.training)
    rows = [frame[(frame["env"] == env) & frame["regime"].isin(names)] for frame in own]
    made = maps.figures(*rows) if len(names) > 1 else {}
    for setting, (name, xlabel) in maps.ALONG.items():
        values = regimes.along(profile, env, setting)
        own = regimes.on_common_seeds(tables.matching(found.episodes, env=env), values)
        if len(own) and (figure := maps.success_along(tables.main_table(own, found.ceilings), values, xlabel)):
            made[name] = figure
    return made


def _of_regime(profile: str, env: str, regime: str, found: Results, of_all: dict[str, pd.DataFrame]) -> Products:
    """The tables of all, and those and the figures of one regime."""
    grid, spec = settings.profile(profile), get(env)
    regime, _ = grid.regime(env, regime)
    own, run = found.of(env, regime), settings.load(profile, env, regime=regime)
    if own.episodes.empty:
        way = f"make them with `python -m reflect_rl reproduce --profile {profile} --env {env}`"
        raise ReflectRLError(f"no results of regime {regime!r} of {env} in profile {profile!r} yet; {way}")
    main, claims = (tables.matching(of_all[name], env=env, regime=regime) for name in ("main", "claims"))
    made = of_all | {
        **{"headline" if s == spec.headline else s: tables.headline(main, env, s) for s in spec.settings},
        "online_rl": tables.online_rl_table(own.training),
        "ablations": claims.loc[claims["claim"].isin(["4", "5"]), COLUMNS].reset_index(drop=True),
        "reflector": tables.reflector_table(own.reflections),
    }
    if len(claims):
        made["verdicts"] = verdicts(claims)
    if not (strata := strata_table(own.episodes, spec)).empty:
        made["strata"] = strata
    figures = {
        "training_curves": curves.training_curves(own.training, own.ceilings, run.rl.horizon),
        "main_results": comparisons.main_results(main),
        "reflector": comparisons.reflector_effect(made["reflector"]),
    }
    if own.episodes["variant"].isin(comparisons.ABLATIONS[1:]).any():
        figures["ablations"] = comparisons.ablations(own.episodes)
    for figure in figures.values():
        figure.suptitle(
            ", ".join(filter(None, (spec.label, regime and f"regime {regime}"))), fontsize="medium", fontweight="bold"
        )
    for episode in watch.kept(profile, grid.stem(env, regime))[:1]:
        how = f"{len(episode['frames']) - 1} steps, {episode['ended'].replace('horizon', 'out of steps')}"
        title = f"{VARIANTS[episode['variant']].label} on {episode['task']}: {how}"
        figures["episode"] = film.film_strip(episode["frames"], title, spec.load_draw())
    return Products(regime, made, figures)


def write_all(profile: str, env: str, found: Results | None = None, regime: str = "") -> Products:
    """Write the `products` of an environment to `results/<profile>/` and `figures/<profile>/`; returns those of `regime` (by
    default the first). The tables of all regimes are written in any case, those of one and its figures for `shown_alone`."""
    found = found or results(profile, env)
    of_all, claims = _write_of_all(profile, found)
    return replace(_write_env(profile, env, found, of_all, regime), claims=claims)


def write_profile(profile: str, envs: Iterable[str]) -> None:
    """`write_all` for several environments; what those of one folder share is made once."""
    known, shared = collected(profile), {}
    for env in envs:
        folder, _ = known.get(env, (None, None))
        if folder not in shared:
            found = results(profile, env)
            shared[folder] = found, _write_of_all(profile, found)[0]
        _write_env(profile, env, *shared[folder])


def _write_of_all(profile: str, found: Results) -> tuple[dict[str, pd.DataFrame], Figure | None]:
    """Write the tables of all environments, and the figure of the claims where there is one; returns both."""
    of_all, words = _of_all(profile, found), protocols(profile)
    made_by = f"python -m reflect_rl report --profile {profile}"
    for name in of_all.keys() - {"claims"}:
        tables.write_table(of_all[name], paths.tables(profile) / name, TITLES_OF_ALL[name], words, made_by)
    rule, judged, place = read_rule(), of_all["claims"][COLUMNS], paths.results(profile) / "claims"
    envs = settings.profile(profile).envs
    opening = f"{counted(judged, envs, rule, elsewhere(profile, envs, judged))}\n\n{rule.in_words}"
    tables.write_table(judged, place, TITLES_OF_ALL["claims"], words, made_by, opening)
    if claims := forest(of_all["claims"]):
        save(claims, paths.figures(profile) / "claims", made_by, CAPTION)
    return of_all, claims


def _write_env(profile: str, env: str, found: Results, of_all: dict[str, pd.DataFrame], regime: str = "") -> Products:
    """Write the tables and figures of an environment; returns its products of `regime`."""
    grid, made_by = settings.profile(profile), f"python -m reflect_rl report --profile {profile} --env {env}"
    made = {each: _of_regime(profile, env, each, found, of_all) for each in shown_alone(grid, env)}
    for each, of in made.items():
        stem, here = grid.stem(env, each), f"{protocol(profile, env, each)} {made_on(profile, env)}"
        for name in of.tables.keys() - TITLES_OF_ALL:
            title = TITLES.get(name, f"Success on {env}, {get(env).headline if name == 'headline' else name}")
            tables.write_table(of.tables[name], paths.tables(profile) / f"{stem}_{name}", title, here, made_by)
        for name, figure in of.figures.items():
            save(figure, paths.figures(profile) / f"{stem}_{name}", made_by)
    drawn = _maps(profile, env, found, of_all)
    for name, figure in drawn.items():
        save(figure, paths.figures(profile) / f"{env}_{name}", made_by, maps.CAPTIONS[name])
    asked = grid.regime(env, regime)[0]
    return replace(made.get(asked) or _of_regime(profile, env, asked, found, of_all), maps=drawn)
