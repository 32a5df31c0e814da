"""What the library knows of an environment (`EnvSpec`), and a step of play as a teacher sees it (`Situation`)."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from types import MappingProxyType
from typing import Annotated, Any, Literal

import gymnasium as gym
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass as validated

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import REFERENCES
from reflect_rl.envs.labels import IN_ORDER, Labels

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Situation:
    """One step of play as a teacher sees it."""

    task: str  #: id of the episode's task
    index: int  #: number of the step, from 0
    observation: str  #: the text that the player reads
    last_action: str  #: the action that led here, empty at the start of an episode
    action_feedback: str  #: on the last action: `start` (there was none), `right` (one of the good ones), `wrong`
    phase: str  #: what the episode is about now, in the environment's words; empty where it has none
    actions: tuple[str, ...]  #: the legal actions
    expert_action: str  #: the expert's next action, one of `actions`: the teacher's spoiler


#: Says in one or two sentences on one line what the last action did and what to do next: the last legal action that
#: they name is the advice.
Teacher = Callable[[Situation], str]
Indices = Callable[[gym.Env], Sequence[int]]  #: some of the legal actions in the environment's state, by their indices


def _in_one_line(cls: type) -> type:
    """Let a dataclass of pydantic raise a `ReflectRLError` that lists all its fields that are missing or wrong."""
    init = cls.__init__

    @functools.wraps(init)
    def __init__(self, *values, **fields):
        try:
            init(self, *values, **fields)
        except ValidationError as error:
            names = dict(enumerate(cls.__dataclass_fields__))  # of fields that are given by position
            places = ([names.get(part, part) for part in e["loc"][:1]] + [*e["loc"][1:]] for e in error.errors())
            wrong = [f"{'.'.join(map(str, p))} ({e['msg']})" for p, e in zip(places, error.errors(), strict=True)]
            raise ReflectRLError(f"{cls.__name__} with missing or wrong fields: {', '.join(wrong)}") from None

    cls.__init__ = __init__
    return cls


@_in_one_line
@validated(frozen=True)
class Reported:
    """A success rate that a publication reports."""

    setting: str  #: family of tasks
    variant: str  #: of the comparison
    rate: Annotated[float, Field(ge=0, le=1)]  #: between 0 and 1
    model: str  #: the language model behind it
    horizon: int | None = None  #: steps of the published episodes; None: the number stands beside any horizon


@dataclass(frozen=True)
class Drawing:
    """How the scenes of an episode are drawn, on axes of matplotlib."""

    draw: Callable[[Any, str], None]  #: `(axis, observation)` draws one observation and sets the axis' limits
    draw_legend: Callable[[Any], None] | None = None  #: `(axis)` explains the symbols on a strip of 6.5 x 0.3 inches
    width: float = 1.5  #: of a scene, in inches; scenes are square
    per_row: int = 8  #: scenes in a row at most
    caption_width: int = 27  #: letters in a line of the caption below a scene


Name = Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]
Names = Annotated[tuple[str, ...], AfterValidator(lambda names: tuple(dict.fromkeys(names)))]  # each once
Dotted = Annotated[str, Field(pattern=r"^[a-z_]+\.[a-z_]+$")]


def _compiled(pattern: str) -> str:
    try:
        return re.compile(pattern).pattern
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error


Pattern = Annotated[str, AfterValidator(_compiled)]
ObjectPath = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]


@_in_one_line
@validated(frozen=True, eq=False, config={"extra": "forbid"})
class EnvSpec:
    """All that the library needs to know of an environment; only the first five fields are required.

    The environment itself is a `gymnasium.Env` whose observation is text and whose action is an index into
    `info["actions"]`, the legal actions (`tuple[str, ...]`, at least one, no duplicates). `reset(options={"task": id})`
    starts that very episode. `info["success"]` is a bool; `info["ended"]` may say how an episode ended. An index beyond
    the legal actions costs a step, changes nothing else, and is named in `info["invalid_action"]`; what is no whole number
    is a TypeError. `envs.check` tells whether an environment is so.

    Raises:
        ReflectRLError: fields are missing or not of their type; the message lists all of them.
    """

    name: Name  #: in results, profiles and on the command line
    #: `(horizon=..., [milestone=...])` builds a bare environment that truncates episodes after `horizon` steps
    make: Callable[..., gym.Env]
    #: `(setting, split)` lists the ids of a family of tasks; splits are `train`, `validation` and `test`, and no task
    #: is in two of them. From its id, a string, an episode is rebuilt exactly
    tasks: Callable[[str, str], tuple[str, ...]]
    expert_action: Callable[[gym.Env], int]  #: index of the best action that a player can know of
    teacher: Teacher  #: writes a reflection on a `Situation`, by rules; it names the expert's action

    label: str = ""  #: in figures; by default the name
    goal: str = ""  #: what the game is about, for language models that are prompted
    legend: str = ""  #: how to read an observation, for the same
    settings: Annotated[Names, Field(min_length=1)] = ("full",)  #: families of tasks that are evaluated
    titles: Mapping[str, str] = field(default_factory=dict)  #: of settings in figures; of one without it its name
    training_setting: str = "full"  #: family that data, RL and the choice of reflectors use; one of `settings` or not
    headline: str = ""  #: stands for the environment; by default `training_setting` if it is evaluated, else the first
    selection_settings: Names = ()  #: choices are made on their validation tasks; by default the headline's
    horizon: PositiveInt = 20  #: steps that a good player needs at most
    claims_horizon: NonNegativeInt = 0  #: horizon that claims are judged at; 0: `horizon`
    #: settings that differ from the library's, such as `{"model.context": 256, "rl.horizon": 30}`
    defaults: Mapping[Dotted, Any] = field(default_factory=dict)
    #: easier families of tasks (names that `tasks` takes) that RL trains first, in their order; their shares of the
    #: budget are the setting `rl.stage_shares`
    stages: Names = ()
    milestones: bool = False  #: whether `make` takes `milestone`: rewards on the way to success, on or off
    #: `(setting, split, most)`: first tasks of a family that is made of several, each cut to `most`
    first_tasks: Callable[[str, str, int], tuple[str, ...]] | None = None

    #: writers of reflections that tell less: `hint` (verdict on the last action, goal, where it lies and what hinders; no
    #: action) and `verdict`
    teachers: Mapping[Literal["hint", "verdict"], Teacher] = field(default_factory=dict)
    #: what a reflection states, by name, such as `{"verdict": "right", "goal": "R"}`; by default its sentences
    facts: Callable[[str], Mapping[str, str]] | None = None

    good_actions: Indices | None = None  #: those as good as the expert's; by default the expert's alone
    safe_actions: Indices | None = None  #: those that do not end the episode in failure; by default all
    slips: Indices | None = None  #: wrong ones to recover from (negative examples); by default all safe, not good ones
    phase: Callable[[gym.Env], str] | None = None  #: what the episode is about now, in a word or two, to balance data
    oracle_action: Callable[[gym.Env], int] | None = None  #: an optimal action of one who knows all; or no oracle
    oracle_steps: Callable[[str], int] | None = None  #: `(task)`, length of a shortest success; or no ceiling

    #: searches and retrievers that learn nothing, beside which the players stand: variant -> index of its next action
    references: Mapping[Literal[REFERENCES], Callable[[gym.Env], int]] = field(default_factory=dict)
    #: `(task)`, what tasks can be sorted by in tables, such as `{"depth": "2"}`
    strata: Callable[[str], Mapping[str, str]] | None = None

    labels: Labels = IN_ORDER  #: which label each legal action gets in the policy's prompt
    #: regular expression for what is one word to a tokenizer that is trained here, before the general rule
    tokenizer_pattern: Pattern = ""
    #: how many environments can be stepped at a time; 1 where a step is quicker than a thread
    parallel: Callable[[], int] = lambda: 1
    task_source: Callable[[str], str] | None = None  #: `(task)`, where a task comes from, in a few words
    manifest: Callable[[Iterable[str]], dict] | None = None  #: `(tasks)`, what they are on disk, with checksums
    draw: ObjectPath | Drawing | None = None  #: `"package.module:object"` is imported late; None: shown as text
    reported: tuple[Reported, ...] = ()  #: published success rates
    reported_on: str = ""  #: what they were measured on
    gym_id: str = ""  #: name in Gymnasium's registry, by default `reflect_rl/<name>-v0`

    def __post_init__(self):
        trained, settings = self.training_setting, self.settings
        headline = self.headline or (trained if trained in settings else settings[0])
        derived = {
            "headline": headline,
            "selection_settings": self.selection_settings or (headline,),
            "claims_horizon": self.claims_horizon or self.horizon,
            "defaults": MappingProxyType({**self.defaults}),
            "gym_id": self.gym_id or f"reflect_rl/{self.name}-v0",
            "label": self.label or self.name,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        if outside := {self.headline, *self.selection_settings} - {*settings}:
            raise ReflectRLError(f"headline and selection_settings should be among {settings}, {outside} are not")
        if outside := self.titles.keys() - {*settings}:
            raise ReflectRLError(f"titles should be of the settings {settings}, {outside} are none")

    def title(self, setting: str) -> str:
        """A family of tasks in figures."""
        return self.titles.get(setting, setting)

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

    def teacher_of(self, tells: str) -> Teacher:
        """Who writes reflections that tell so much: `action`, `hint` or `verdict`."""
        known = {"action": self.teacher, **self.teachers}
        if tells not in known:
            raise ReflectRLError(
                f"environment {self.name!r} has no teacher for teacher.tells={tells}, only for {', '.join(known)}; "
                "give its EnvSpec one in `teachers`"
            )
        return known[tells]

    def facts_of(self, text: str) -> dict[str, str]:
        """What a reflection states, by name: `facts`, or its sentences by their number."""
        return dict(self.facts(text) if self.facts else enumerate(re.split(r"(?<=[.:;!?]) ", text)))

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
        numbers = (number for number in self.reported if (number.setting, number.variant) == (setting, variant))
        return next((n.rate for n in numbers if None in (horizon, n.horizon) or horizon == n.horizon), None)

    def load_draw(self) -> Drawing | None:
        """The environment's drawing, imported now; None where observations are shown as text."""
        return EntryPoint(self.name, self.draw, "drawing").load() if isinstance(self.draw, str) else self.draw
