"""What the library knows of an environment (`EnvSpec`), and a step of play as a teacher sees it (`Situation`)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from types import MappingProxyType
from typing import Any, Protocol

import gymnasium as gym

from reflect_rl.envs.labels import IN_ORDER, Labels

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Situation:
    """One step of play as a teacher sees it.

    Attributes:
        task: id of the episode's task.
        index: number of the step, from 0.
        observation: the text that the player reads.
        last_action: the action that led here, empty at the start of an episode.
        action_feedback: on the last action: `start` (there was none), `right` (one of the good ones), `wrong`.
        phase: what the episode is about now, in the environment's words; empty where it has none.
        actions: the legal actions.
        expert_action: the expert's next action, one of `actions`: the teacher's spoiler.
    """

    task: str
    index: int
    observation: str
    last_action: str
    action_feedback: str
    phase: str
    actions: tuple[str, ...]
    expert_action: str


#: Says in one or two sentences on one line what the last action did and what to do next: the last legal action that
#: they name is the advice.
Teacher = Callable[[Situation], str]


class MakeEnv(Protocol):
    """Builds a bare environment; one whose spec has `milestones` also takes `milestone=True`."""

    def __call__(self, *, horizon: int, **options: Any) -> gym.Env: ...


@dataclass(frozen=True)
class Reported:
    """A success rate that a publication reports.

    Attributes:
        setting, variant: which family of tasks, and which variant of the comparison.
        rate: success rate between 0 and 1.
        model: the language model behind it.
        horizon: steps of the published episodes; None where the number stands beside any horizon.
    """

    setting: str
    variant: str
    rate: float
    model: str
    horizon: int | None = None


@dataclass(frozen=True)
class Drawing:
    """How the scenes of an episode are drawn; `Axes` are those of matplotlib.

    Attributes:
        draw: `(axis, observation)` draws one observation and sets the axis' limits.
        draw_legend: `(axis)` explains the symbols on a strip of 6.5 x 0.3 inches; None where none need it.
        width: of a scene, in inches; scenes are square.
        per_row: scenes in a row at most.
        caption_width: letters in a line of the caption below a scene.
    """

    draw: Callable[[Any, str], None]
    draw_legend: Callable[[Any], None] | None = None
    width: float = 1.5
    per_row: int = 8
    caption_width: int = 27


def _one() -> int:
    return 1


@dataclass(frozen=True, eq=False)
class EnvSpec:
    """All that the library needs to know of an environment.

    The environment itself is a `gymnasium.Env` whose observation is text and whose action is an index into
    `info["actions"]`, the legal actions (`tuple[str, ...]`, at least one, no duplicates). `reset(options={"task": id})`
    starts that very episode. `info["success"]` is a bool; `info["ended"]` may say how an episode ended. An index beyond
    the legal actions costs a step, changes nothing else, and is named in `info["invalid_action"]`. `envs.check` tells
    whether an environment is so.

    Only the first five are required; the methods below say what stands in for a function that is not given.

    Attributes:
        name: in results, profiles and on the command line.
        make: `(horizon=..., [milestone=...])` builds a bare environment that truncates episodes after `horizon` steps.
        tasks: `(setting, split)` lists the ids of a family of tasks; splits are `train`, `validation` and `test`, and
            no task is in two of them. An id is a string from which the episode is rebuilt exactly.
        expert_action: `(env)` is the index of the best action that a player can know of.
        teacher: writes a reflection on a `Situation`, by rules.

        goal, legend: what the game is about and how to read an observation, for language models that are prompted.
        settings: the families of tasks that are evaluated.
        training_setting: the family that data, RL and the choice of reflectors use; one of `settings` or not.
        headline: the setting that stands for the environment: `training_setting` where that is evaluated, else the
            first.
        selection_settings: on whose validation tasks a choice between settings is made; the headline by default.
        horizon: steps that a good player needs at most.
        claims_horizon: the horizon that claims are judged at; `horizon` by default.
        defaults: settings that differ from the library's, such as `{"model.context": 256, "rl.horizon": 30}`.
        stages: easier families of tasks (names that `tasks` takes) that RL trains first, in their order; their shares
            of the budget are the setting `rl.stage_shares`.
        milestones: whether `make` takes `milestone`, which turns the rewards on the way to success on or off.
        first_tasks: `(setting, split, most)`, the first tasks of a family that is made of several, each cut to `most`.

        good_actions: `(env)`, indices of the actions that are as good as the expert's.
        safe_actions: `(env)`, indices of the actions that do not end the episode in failure.
        slips: `(env)`, indices of the wrong actions that can be recovered from: what negative examples are made of.
        phase: `(env)`, a word or two on what the episode is about now; data are balanced over phases.
        oracle_action: `(env)`, index of an optimal action of one who knows all; without it, there is no oracle.
        oracle_steps: `(task)`, length of a shortest successful episode; without it, there is no ceiling.

        labels: which label each legal action gets in the policy's prompt.
        tokenizer_pattern: regular expression for what is one word to a tokenizer that is trained here, before the
            general rule; empty for none.
        parallel: how many environments can be stepped at a time; 1 where a step is quicker than a thread.
        task_source: `(task)`, where a task comes from, in a few words.
        manifest: `(tasks)`, what tasks are on disk, with checksums; None where they are nothing but their ids.
        draw: a `Drawing`, or `"package.module:object"`, where one is; without it, observations are shown as text.
        reported, reported_on: published success rates, and what they were measured on.
        gym_id: name in Gymnasium's registry, by default `reflect_rl/<name>-v0`.
    """

    name: str
    make: MakeEnv
    tasks: Callable[[str, str], tuple[str, ...]]
    expert_action: Callable[[gym.Env], int]
    teacher: Teacher

    goal: str = ""
    legend: str = ""
    settings: tuple[str, ...] = ("full",)
    training_setting: str = "full"
    headline: str = ""
    selection_settings: tuple[str, ...] = ()
    horizon: int = 20
    claims_horizon: int = 0
    defaults: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    milestones: bool = False
    first_tasks: Callable[[str, str, int], tuple[str, ...]] | None = None

    good_actions: Callable[[gym.Env], Sequence[int]] | None = None
    safe_actions: Callable[[gym.Env], Sequence[int]] | None = None
    slips: Callable[[gym.Env], Sequence[int]] | None = None
    phase: Callable[[gym.Env], str] | None = None
    oracle_action: Callable[[gym.Env], int] | None = None
    oracle_steps: Callable[[str], int] | None = None

    labels: Labels = IN_ORDER
    tokenizer_pattern: str = ""
    parallel: Callable[[], int] = _one
    task_source: Callable[[str], str] | None = None
    manifest: Callable[[Iterable[str]], dict] | None = None
    draw: str | Drawing | None = None
    reported: tuple[Reported, ...] = ()
    reported_on: str = ""
    gym_id: str = ""

    def __post_init__(self):
        stands_for_all = self.training_setting if self.training_setting in self.settings else (*self.settings, "")[0]
        headline = self.headline or stands_for_all
        derived = {
            "headline": headline,
            "selection_settings": self.selection_settings or (headline,),
            "claims_horizon": self.claims_horizon or self.horizon,
            "defaults": MappingProxyType(dict(self.defaults)),
            "gym_id": self.gym_id or f"reflect_rl/{self.name}-v0",
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def panel(self, setting: str, split: str, most: int = 0) -> tuple[str, ...]:
        """The tasks of a family and split; with `most` the first ones of it (of each of its parts: `first_tasks`)."""
        if most and self.first_tasks is not None:
            return self.first_tasks(setting, split, most)
        return self.tasks(setting, split)[: most or None]

    def good(self, env: gym.Env) -> tuple[int, ...]:
        """Indices of the actions that count as right: `good_actions`, or the expert's alone."""
        return (self.expert_action(env),) if self.good_actions is None else tuple(self.good_actions(env))

    def safe(self, env: gym.Env, actions: Sequence[str]) -> tuple[int, ...]:
        """Indices of those of the legal `actions` that do not end the episode in failure: `safe_actions`, or all."""
        return tuple(range(len(actions))) if self.safe_actions is None else tuple(self.safe_actions(env))

    def slips_of(self, env: gym.Env, actions: Sequence[str]) -> tuple[int, ...]:
        """Indices of the wrong ones of the legal `actions` that can be recovered from: `slips`, or all safe ones."""
        if self.slips is not None:
            return tuple(self.slips(env))
        good = self.good(env)
        return tuple(action for action in self.safe(env, actions) if action not in good)

    def phase_of(self, env: gym.Env) -> str:
        """What the episode is about now; empty where there is no `phase`."""
        return "" if self.phase is None else self.phase(env)

    def source_of(self, task: str) -> str:
        """Where a task comes from, in a few words; empty where there is no `task_source`."""
        return "" if self.task_source is None else self.task_source(task)

    def ceiling(self, setting: str, split: str, horizon: int, most: int = 0) -> float | None:
        """Share of a panel's tasks that can be finished within the horizon at all; None without `oracle_steps`."""
        if self.oracle_steps is None:
            return None
        panel = self.panel(setting, split, most)
        return sum(self.oracle_steps(task) <= horizon for task in panel) / len(panel)

    def reported_rate(self, setting: str, variant: str, horizon: int | None = None) -> float | None:
        """The published success rate (0 to 1), or None where none is known (at this horizon, if one is given)."""
        for number in self.reported:
            if (number.setting, number.variant) == (setting, variant):
                return number.rate if None in (horizon, number.horizon) or horizon == number.horizon else None
        return None

    def load_draw(self) -> Drawing | None:
        """The environment's drawing, imported now; None where observations are shown as text."""
        if not isinstance(self.draw, str):
            return self.draw
        return EntryPoint(self.name, self.draw, "drawing").load()
