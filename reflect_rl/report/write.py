"""All tables and figures of a profile, made from its raw results and written to their files."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from reflect_rl.core import paths
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.registry import get
from reflect_rl.report import comparisons, curves, film, tables
from reflect_rl.report.claims import SENTENCES, claims_table
from reflect_rl.report.protocol import protocols
from reflect_rl.report.results import Results, example_episode, results
from reflect_rl.report.style import save
from reflect_rl.report.tuning import tuning_results

TITLES_OF_ALL = {  # tables that hold all environments of a profile
    "main": "Success by variant",
    "seeds": "How far seeds lie apart",
    "runs": "Training runs",
    "prompts": "Prompts of the policies in evaluation, in tokens",
    "claims": "The paper's claims, tested",
}
TITLES = {  # tables of one environment, beside those of success in each of its settings
    "online_rl": "Validation success before and after online RL",
    "ablations": "Ablations: difference in test success",
    "reflector": "What the reflector says, by situation",
}


@dataclass
class Products:
    """What is made of an environment's raw results, by the names of the files without the environment's."""

    tables: dict[str, pd.DataFrame]  #: those of `TITLES_OF_ALL` and `TITLES`, `headline`, one for each further setting
    figures: dict[str, Figure]  #: what there is something to draw of


def products(profile: str, env: str, found: Results | None = None) -> Products:
    """Everything that the raw results (by default what `results` reads) say of an environment; nothing is written."""
    found = found or results(profile, env)
    own, spec = found.of(env), get(env)
    main = tables.main_table(found.episodes, found.ceilings)
    claims = claims_table(found.episodes, found.ceilings)
    made = {
        "main": main,
        "seeds": tables.seed_table(found.episodes),
        "runs": tables.ordered(found.runs, ["env", "variant", "seed"]),
        "prompts": tables.prompt_table(found.prompts),
        "claims": claims,
        **{"headline" if s == spec.headline else s: tables.headline(main, env, s) for s in spec.settings},
        "online_rl": tables.online_rl_table(own.training),
        "ablations": claims[(claims["env"] == env) & claims["claim"].isin([4, 5])].reset_index(drop=True),
        "reflector": tables.reflector_table(own.reflections),
    }
    figures = {
        "training_curves": curves.training_curves(own.training, own.ceilings),
        "main_results": comparisons.main_results(main[main["env"] == env]),
        "reflector": comparisons.reflector_effect(made["reflector"]),
    }
    if own.episodes["variant"].isin(comparisons.ABLATIONS[1:]).any():
        figures["ablations"] = comparisons.ablations(own.episodes)
    tuning = tuning_results(profile)
    if tuning is not None and tuning.loc[tuning["env"] == env, "overrides"].str.contains("policy.steps=").any():
        figures["warmup_length"] = curves.warmup_length(tuning[tuning["env"] == env])
    if episode := example_episode(profile, env):
        title = f"{VARIANTS[episode['variant']].label} on {episode['task']}: {len(episode['frames']) - 1} steps, "
        figures["episode"] = film.film_strip(episode["frames"], title + episode["ended"], spec.load_draw())
    return Products(made, figures)


def write_all(profile: str, env: str, found: Results | None = None) -> Products:
    """Write the `products` of an environment to `results/<profile>/` and `figures/<profile>/`, and return them."""
    made = products(profile, env, found)
    everywhere, here = protocols(profile), protocols(profile, env)
    for name, table in made.tables.items():
        if name in TITLES_OF_ALL:
            folder = paths.results(profile) if name == "claims" else paths.tables(profile)
            words = f"{SENTENCES} {everywhere}" if name == "claims" else everywhere
            tables.write_table(table, folder / name, TITLES_OF_ALL[name], words)
        else:
            success = f"Success on {env}, {get(env).headline if name == 'headline' else name}"
            tables.write_table(table, paths.tables(profile) / f"{env}_{name}", TITLES.get(name, success), here)
    for name, figure in made.figures.items():
        made_by = f"python -m reflect_rl report --profile {profile} --env {env}"
        save(figure, paths.figures(profile) / f"{env}_{name}", made_by)
    return made
