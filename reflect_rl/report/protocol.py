"""How a profile's numbers come about, in words that stand beside every table."""

from reflect_rl.core.config import Config
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.profiles import Profile
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs import settings
from reflect_rl.envs.base import EnvSpec
from reflect_rl.envs.registry import get
from reflect_rl.report.results import entries, places

INTERVALS = (
    "Intervals: 95%, Student's over the means of seeds (for claims over the seeds' paired differences), Wilson's over "
    "tasks where there is one seed or seeds do not differ."
)


def protocol(profile_name: str, env: str) -> str:
    """One paragraph on how a profile's numbers come about, to be printed beside them."""
    profile, run, spec = settings.profile(profile_name), settings.load(profile_name, env), get(env)
    if env not in profile.envs:
        raise ReflectRLError(f"profile {profile_name!r} does not run {env!r}; add it to `envs` in its file in configs/")
    sentences = [
        f"Protocol: profile `{profile_name}`, {len(profile.seeds)} seeds, each with its own data, reflector and policy; "
        f"{_panels(run, spec)}; sampled decoding at temperature 1 with {run.evaluation.repeats} episodes a task, greedy "
        f"decoding with one; the policy is the one after {run.rl.env_steps} environment steps (no early stopping); the "
        "reflector's checkpoint and, where there is a tuning grid, its choice were decided on validation tasks only.",
        _prompted(profile, env),
        f"Claims are judged on sampled decoding within {spec.claims_horizon} steps.",
        INTERVALS,
    ]
    if spec.oracle_steps is not None:
        sentences.append("The ceiling is the share of tasks that can be finished within the horizon at all.")
    if spec.reported:
        source = "a secondary source, a summary of its tables"
        sentences.append(f"The paper's numbers come from {source}, and were measured on {spec.reported_on}.")
    return " ".join(filter(None, sentences))


def _panels(run: Config, spec: EnvSpec) -> str:
    """How many tasks each setting has."""
    panel = run.evaluation
    sizes = {setting: len(spec.panel(setting, panel.split, panel.tasks)) for setting in spec.settings}
    if len(set(sizes.values())) == 1:
        return f"{sizes[spec.headline]} fixed {panel.split} tasks a setting"
    return f"fixed {panel.split} tasks ({', '.join(f'{n} {setting}' for setting, n in sizes.items())})"


def _prompted(profile: Profile, env: str) -> str:
    """How the prompted variants were evaluated, in a sentence; empty where there are none."""
    variants = [variant for variant in profile.variants_of(env) if VARIANTS[variant].prompted]
    runs = [settings.load(profile.name, env, variant) for variant in variants]
    if not runs:
        return ""
    played = [
        f"{VARIANTS[run.variant].label}: {run.evaluation.tasks or 'all'} tasks of each setting, "
        f"{run.evaluation.repeats} sampled episode{'s' * (run.evaluation.repeats > 1)} each"
        for run in runs
    ]
    return f"Prompted models ({runs[0].model_name}) are not trained and have one seed ({'; '.join(played)})."


def protocols(profile_name: str) -> str:
    """Protocol and hardware of every environment of a profile, for tables that hold them all."""
    envs = settings.profile(profile_name).envs
    texts = [f"{protocol(profile_name, env)} {hardware(profile_name, env)}".rstrip() for env in envs]
    if len(envs) == 1:
        return texts[0]
    return "\n\n".join(f"{env}. {text}" for env, text in zip(envs, texts, strict=True))


def hardware(profile_name: str, env: str) -> str:
    """What the runs of an environment's collected results were made on, in a sentence; empty where there are none yet."""
    found = [entries(folder) for folder in places(profile_name)]
    return next((f"Made on {'; '.join(made[env]['machines'])}." for made in found if env in made), "")
