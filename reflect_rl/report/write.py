"""All tables and figures of a profile, made from its raw results and written to their files."""

from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from reflect_rl.core import paths
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs.registry import get
from reflect_rl.report import comparisons, curves, film, tables
from reflect_rl.report.claims import SENTENCES, claims_table
from reflect_rl.report.protocol import hardware, protocol, protocols
from reflect_rl.report.results import Results, example_episode, results
from reflect_rl.report.style import save
from reflect_rl.report.tuning import tuning_results

TITLES = {  # of the tables that hold all environments of a profile
    "main": "Success by variant",
    "seeds": "How far seeds lie apart",
    "runs": "Training runs",
    "prompts": "Prompts of the policies in evaluation, in tokens",
    "claims": "The paper's claims, tested",
}


@dataclass
class Products:
    """Tables and figures by the names of their files, without the environment's.

    Attributes:
        tables: `main`, `seeds`, `runs`, `prompts` and `claims` of all environments that were collected; `headline`,
            one for each further setting, `online_rl`, `ablations` and `reflector` of one environment.
        figures: `training_curves`, `main_results`, `ablations`, `reflector`, `warmup_length` and `episode`, where there
            is something to draw.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)


def products(profile: str, env: str, found: Results | None = None) -> Products:
    """Everything that the raw results of an environment say; nothing is run or written.

    Args:
        found: the raw results, by default those that `results` reads.
    """
    found = found or results(profile, env)
    own, spec = found.of(env), get(env)
    made = Products()
    main = tables.main_table(found.episodes, found.ceilings)
    claims = claims_table(found.episodes, found.ceilings)
    made.tables = {
        "main": main,
        "seeds": tables.seed_table(found.episodes),
        "runs": tables.run_table(found.runs),
        "prompts": tables.prompt_table(found.prompts),
        "claims": claims,
    }
    for setting in spec.settings:
        made.tables["headline" if setting == spec.headline else setting] = tables.headline(main, env, setting)
    made.tables["online_rl"] = tables.online_rl_table(own.training)
    made.tables["ablations"] = claims[(claims["env"] == env) & claims["claim"].isin([4, 5])].reset_index(drop=True)
    made.tables["reflector"] = tables.reflector_table(own.reflections)
    made.figures = {
        "training_curves": curves.training_curves(own.training, own.ceilings),
        "main_results": comparisons.main_results(main[main["env"] == env]),
        "reflector": comparisons.reflector_effect(made.tables["reflector"]),
    }
    if own.episodes["variant"].isin(comparisons.ABLATIONS[1:]).any():
        made.figures["ablations"] = comparisons.ablations(own.episodes)
    tuning = tuning_results(profile)
    if tuning is not None and tuning.loc[tuning["env"] == env, "overrides"].str.contains("policy.steps=").any():
        made.figures["warmup_length"] = curves.warmup_length(tuning[tuning["env"] == env])
    episode = example_episode(profile, env)
    if episode is not None:
        title = f"{VARIANTS[episode['variant']].label} on {episode['task']}: {len(episode['frames']) - 1} steps, "
        made.figures["episode"] = film.film_strip(episode["frames"], title + episode["ended"], spec.load_draw())
    return made


def write_all(profile: str, env: str, found: Results | None = None) -> Products:
    """Make and write every table and figure of an environment: `results/<profile>/` and `figures/<profile>/`.

    They are functions of the raw results alone, so this can be repeated without any run. Returns what was written.
    """
    made = products(profile, env, found)
    everywhere, here = protocols(profile), f"{protocol(profile, env)} {hardware(profile, env)}".rstrip()
    for name, title in TITLES.items():
        folder = paths.results(profile) if name == "claims" else paths.tables(profile)
        words = f"{SENTENCES} {everywhere}" if name == "claims" else everywhere
        tables.write_table(made.tables[name], folder / name, title, words)
    own_titles = {
        "online_rl": "Validation success before and after online RL",
        "ablations": "Ablations: difference in test success",
        "reflector": "What the reflector says, by situation",
    }
    for name in made.tables.keys() - TITLES.keys():
        setting = get(env).headline if name == "headline" else name
        title = own_titles.get(name, f"Success on {env}, {setting}")
        tables.write_table(made.tables[name], paths.tables(profile) / f"{env}_{name}", title, here)
    for name, figure in made.figures.items():
        made_by = f"python -m reflect_rl report --profile {profile} --env {env}"
        save(figure, paths.figures(profile) / f"{env}_{name}", made_by)
    return made
