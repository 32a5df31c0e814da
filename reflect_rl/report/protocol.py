"""How a profile's numbers come about, in words that stand beside every table."""

from collections.abc import Mapping
from typing import Any

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.profiles import Profile
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs import settings
from reflect_rl.envs.registry import get
from reflect_rl.report.raw import collected


def protocol(profile_name: str, env: str, regime: str = "") -> str:
    """One paragraph on how an environment's numbers come about in a regime, to be printed beside them."""
    profile, run, spec = settings.profile(profile_name), settings.load(profile_name, env, regime=regime), get(env)
    if env not in profile.envs:
        raise ReflectRLError(f"profile {profile_name!r} does not run {env!r}; add it to `envs` in its file in configs/")
    seeds, named = profile.seeds_of(run.variant, env, regime), f", regime `{run.regime}`" * bool(run.regime)
    split, most = run.evaluation.split, run.evaluation.tasks
    sizes = {setting: len(spec.panel(setting, split, most)) for setting in spec.settings}
    panels = f"fixed {split} tasks ({', '.join(f'{size} {setting}' for setting, size in sizes.items())})"
    if len(set(sizes.values())) == 1:
        panels = f"{sizes[spec.headline]} fixed {split} tasks a setting"
    chosen = ["the reflector's checkpoint"] * (run.reflector.evaluate_every < run.reflector.steps)
    chosen += ["what was tuned"] * (env in profile.tuning)
    sentences = [
        f"Protocol: profile `{profile_name}`{named}, {_counted(len(seeds), 'seed')}, each with its own data, reflector and "
        f"policy; {panels}; sampled decoding at temperature 1 with {_counted(run.evaluation.repeats, 'episode')} a task, greedy "
        f"decoding with one; the policy is the one after {run.rl.env_steps} environment steps (no early stopping)"
        f"{'; decided on validation tasks only: ' * bool(chosen)}{' and '.join(chosen)}.",
        _prompted(profile, env, regime),
        "Claims are judged on what configs/claims.yaml lists for them.",
        "Intervals: 95%, over seeds and tasks, both as samples (for claims of the paired differences); where there is one "
        "seed over tasks alone, so that they say nothing of other seeds.",
    ]
    if spec.oracle_steps is not None:
        sentences.append("The ceiling is the share of tasks that can be finished within the horizon at all.")
    if spec.reported:
        source = "a secondary source, a summary of its tables"
        sentences.append(f"The paper's numbers come from {source}, and were measured on {spec.reported_on}.")
    return " ".join(filter(None, sentences))


def _prompted(profile: Profile, env: str, regime: str) -> str:
    """How the prompted variants were evaluated, in a sentence; empty where there are none."""
    names = [name for name in profile.variants_of(env, regime) if VARIANTS[name].prompted]
    runs = [settings.load(profile.name, env, name, regime=regime) for name in names]
    if not runs:
        return ""
    played = "; ".join(
        f"{run.arm.label}: {run.evaluation.tasks or 'all'} tasks of each setting, "
        f"{_counted(run.evaluation.repeats, 'sampled episode')} each"
        for run in runs
    )
    return f"Prompted models ({runs[0].model_name}) are not trained and have one seed ({played})."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def made_on(profile_name: str, env: str) -> str:
    """What the runs of an environment's collected results were made on, and how long their RL took, in a sentence; empty where
    there are none yet."""
    _, entry = collected(profile_name).get(env, (None, None))
    if entry is None:
        return ""
    return (
        f"Made on {'; '.join(entry['machines'])}; RL of all runs took {entry['rl_seconds'] / 3600:.1f} hours together."
    )


def regimes(profile_name: str, env: str) -> str:
    """What sets the regimes of an environment apart, as a list in Markdown; empty where there is one."""
    profile = settings.profile(profile_name)
    told = []
    for name, regime in profile.section(env).regimes.items():
        given = [_given(regime.settings) or "none"]
        given += [f"{VARIANTS[one].label} {_given(own)}" for one, own in regime.variant_overrides.items()]
        if regime.variants and name != next(iter(profile.section(env).regimes)):
            given.append("only " + ", ".join(VARIANTS[one].label for one in regime.variants))
        number = len(profile.seeds_of("reflect_rl", env, name))
        told.append(f"- `{name}` ({_counted(number, 'seed')}): {'; '.join(given)}")
    return "\n".join(["Settings of the regimes:", "", *told]) if len(told) > 1 else ""


def _given(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def protocols(profile_name: str) -> str:
    """Protocol, regimes and hardware of every environment of a profile, for tables that hold them all."""
    texts = {}
    for env in settings.profile(profile_name).envs:
        said = " ".join(filter(None, (of(profile_name, env) for of in (protocol, made_on))))
        texts[env] = "\n\n".join(filter(None, (said, regimes(profile_name, env))))
    return "\n\n".join(f"{env}. {text}" if len(texts) > 1 else text for env, text in texts.items())
