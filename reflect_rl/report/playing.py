"""What one plays with in a notebook: an episode step by step, an edited reflection, two reflectors, a browser of failures.

Each widget shows what functions return that work without one.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.base import EnvSpec, Situation
from reflect_rl.envs.play import advised_action, last_mention
from reflect_rl.lm.players import Reflector
from reflect_rl.lm.prompts import format_of, reflection_prompt
from reflect_rl.report.film import film_strip
from reflect_rl.report.style import COLOURS, SHARE, STYLE, image, name_ticks
from reflect_rl.report.tables import in_order
from reflect_rl.train.data import trajectory
from reflect_rl.train.warmup import PlayerPair

NONE = "none"
MOST, ROWS = 12, 20  # actions on a figure, episodes in a table


def situations(spec: EnvSpec, task: str, random_actions: float = 0.0, seed: int = 0) -> list[Situation]:
    """Where the expert's way through a task leads, with a share of random actions."""
    rng = np.random.default_rng(seed)
    return [now for now, _ in trajectory(spec, spec.make(), task, random_actions, rng)]


def counterfactuals(spec: EnvSpec, now: Situation, reflector: Reflector | None = None) -> dict[str, str]:
    """Reflections on a situation, by whose they are: the reflector's, the teacher's, the teacher's with another action as its
    advice, none."""
    teachers, wrong = spec.teacher(now), None
    advised = advised_action(teachers, now.actions)
    if advised is not None:
        others = [action for action in now.actions if action != now.actions[advised] and action not in teachers]
        end = last_mention(teachers, now.actions[advised])
        start = end - len(now.actions[advised])
        wrong = next((f"{teachers[:start]}{other}{teachers[end:]}" for other in others), None)
    own = reflector and reflector.reflect([reflection_prompt(now.observation, now.last_action)])[0]
    found = {"the reflector's": own, "the teacher's": teachers, "wrong advice": wrong, NONE: ""}
    return {name: text for name, text in found.items() if text is not None}


@torch.no_grad()
def probabilities(players: PlayerPair, now: Situation, reflections: Mapping[str, str]) -> pd.DataFrame:
    """What the policy would do in a situation if it read each of these reflections: a row a legal action, a column a reflection."""
    policy, texts = players.policy, [*reflections.values()]
    labels, write = policy.labels.of(now.actions), format_of(policy.labels).policy
    prompts = [write(now.observation, now.last_action, now.actions, t, policy.labels.texts(labels)) for t in texts]
    shares = policy.log_probs(prompts, [labels] * len(prompts)).exp().cpu().numpy()
    return pd.DataFrame(
        shares[:, : len(now.actions)].T, index=pd.Index(now.actions, name="action"), columns=[*reflections]
    )


def obedience(spec: EnvSpec, players: PlayerPair, tasks: Sequence[str], random_actions: float = 0.1) -> pd.DataFrame:
    """How often the policy's most probable action is the one that a reflection names, and how often the expert's, by whose the
    reflection is (`counterfactuals`), over the situations of some tasks; empty where reflections name none."""
    rows = []
    for number, task in enumerate(tasks):
        for now in situations(spec, task, random_actions, number):
            texts = counterfactuals(spec, now, players.reflector)
            for whose, action in probabilities(players, now, texts).idxmax().items():
                advised = advised_action(texts[whose], now.actions)
                obeys = np.nan if advised is None else float(action == now.actions[advised])
                rows.append((whose, obeys, float(action == now.expert_action)))
    columns = ["reflection", "does what it says", "does what the expert does"]
    return pd.DataFrame(rows, columns=columns).groupby("reflection", sort=False).mean()


@matplotlib.rc_context(STYLE)
def bars(shares: pd.DataFrame) -> Figure:
    """`probabilities` as bars, a panel a reflection, of the actions that are the most probable in any."""
    kept = shares.loc[shares.max(axis=1).sort_values(ascending=False, kind="stable").index[:MOST]].iloc[::-1]
    figure = Figure(figsize=(1.4 + 1.9 * kept.shape[1], 0.9 + 0.2 * len(kept)), layout="constrained")
    axes = figure.subplots(1, kept.shape[1], sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, kept, strict=True):
        axis.barh(range(len(kept)), kept[name], color=COLOURS["reflect_rl"])
        axis.set(title=name, xlim=(0, 1), xlabel="Probability")
        axis.set_xticks(SHARE, [f"{share:g}" for share in SHARE])
        name_ticks(axis, "y", [*kept.index])
    return figure


def compared(reflectors: Mapping[str, Reflector], spec: EnvSpec, now: Situation) -> pd.DataFrame:
    """What reflectors, and the teacher, say of a situation: the text, the action that it names last, whether it is the expert's."""
    asked = reflection_prompt(now.observation, now.last_action)
    said = {name: reflector.reflect([asked])[0] for name, reflector in reflectors.items()} | {
        "teacher": spec.teacher(now)
    }
    rows = {}
    for name, text in said.items():
        advised = advised_action(text, now.actions)
        action = "(no legal action)" if advised is None else now.actions[advised]
        rows[name] = {"reflection": text, "advice": action, "expert's": action == now.expert_action}
    return pd.DataFrame(rows).T


def endings(episodes: pd.DataFrame) -> pd.DataFrame:
    """How the episodes of each variant ended: shares."""
    found = episodes.groupby("variant")["ended"].value_counts(normalize=True).unstack(fill_value=0.0)
    return found.loc[in_order(found.index)]


def _shown(draw: Callable[..., Figure | pd.DataFrame], **controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """Controls, and below them what `draw` returns for their values."""
    shown, table = ipywidgets.Image(format="png"), ipywidgets.HTML()

    def update(_=None):
        found = draw(**{name: control.value for name, control in controls.items()})
        if isinstance(found, pd.DataFrame):
            table.value = found.to_html()
        else:
            shown.value = image(found, dpi=110)

    for control in controls.values():
        control.observe(update, "value")
    update()
    return ipywidgets.VBox([*controls.values(), shown, table])


def stepper(frames: Sequence[dict], title: str, spec: EnvSpec) -> ipywidgets.VBox:
    """An episode, a step at a time."""
    slider = ipywidgets.IntSlider(0, 0, len(frames) - 1, description="step")
    drawing = spec.load_draw()
    return _shown(lambda step: film_strip(frames[step : step + 1], f"{title}, step {step}", drawing), step=slider)


def editor(players: PlayerPair, now: Situation, reflections: Mapping[str, str]) -> ipywidgets.VBox:
    """A reflection to be edited, and what the policy makes of it beside the first of `reflections`."""
    if not reflections:
        raise ReflectRLError("no reflections to begin with; give `counterfactuals`")
    first, wide = next(iter(reflections.items())), {"width": "95%"}
    choice = ipywidgets.Dropdown(options=[*reflections], description="begin with")
    text = ipywidgets.Textarea(first[1], description="it says", layout=wide)
    choice.observe(lambda change: setattr(text, "value", reflections[change["new"]]), "value")
    shown = _shown(lambda text: bars(probabilities(players, now, {first[0]: first[1], "yours": text})), text=text)
    return ipywidgets.VBox([choice, shown])


def two_reflectors(reflectors: Mapping[str, Reflector], spec: EnvSpec, some: Sequence[Situation]) -> ipywidgets.VBox:
    """What each says of a situation, to be chosen."""
    slider = ipywidgets.IntSlider(0, 0, len(some) - 1, description="situation")
    return _shown(lambda situation: compared(reflectors, spec, some[situation]), situation=slider)


def browser(episodes: pd.DataFrame) -> ipywidgets.VBox:
    """The episodes of a variant that ended in some way, the first `ROWS`."""
    variant = ipywidgets.Dropdown(options=in_order(episodes["variant"]), description="variant")
    ended = ipywidgets.Dropdown(options=sorted(episodes["ended"].unique()), description="ended")
    shown = ["seed", "task", "decoding", "steps", "return", "ended"]

    def found(variant: str, ended: str) -> pd.DataFrame:
        rows = episodes.loc[(episodes["variant"] == variant) & (episodes["ended"] == ended), shown]
        return rows.head(ROWS).rename_axis(columns=f"{min(ROWS, len(rows))} of {len(rows)}")

    return _shown(found, variant=variant, ended=ended)
