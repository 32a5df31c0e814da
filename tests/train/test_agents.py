"""Episodes in lockstep, the agents that are not trained, and what the players' agent remembers."""

from dataclasses import replace

import numpy as np
import pytest
from corridor import SPEC as CORRIDOR
from corridor import Corridor
from train_helpers import load_rl

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.labels import IN_ORDER
from reflect_rl.envs.registry import get
from reflect_rl.train.agents import Follow, PerturbedAgent, Random, Scripted
from reflect_rl.train.rollout import Decision, PlayersAgent, play
from reflect_rl.train.warmup import new_players

TAXI = get("taxi")


def rngs(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


def story(episode):
    return [(t.observation, t.decision.action, t.reward) for t in episode.transitions] + [episode.last_observation]


class Always:
    """Takes the same action in every episode."""

    def __init__(self, action):
        self.action = action

    def decide(self, episodes):
        return [Decision(self.action)] * len(episodes)


def test_episode_alone_equals_the_same_episode_in_a_batch():
    tasks = TAXI.tasks("full", "train")[:30]
    together = play(TAXI, Random(), tasks, rngs(30), 20)
    for i in (0, 7, 29):
        (alone,) = play(TAXI, Random(), [tasks[i]], [rngs(30)[i]], 20)
        assert story(alone) == story(together[i])
    assert len({len(episode) for episode in together}) > 1


def test_an_episode_ends_in_success_at_the_horizon_or_as_the_environment_says():
    def ended(spec, action, task, horizon):
        (episode,) = play(spec, Always(action), [task], rngs(1), horizon)
        return episode.ended, episode.success, len(episode)

    assert ended(CORRIDOR, 1, "start-2", 8) == ("success", True, 3)
    assert ended(CORRIDOR, 1, "start-2", 3) == ("success", True, 3)  # in the last step that there is
    assert ended(CORRIDOR, 0, "start-2", 4) == ("horizon", False, 4)
    assert ended(TAXI, 5, TAXI.tasks("full", "test")[0], 4) == ("danger", False, 1)


def test_an_ending_that_the_environment_does_not_name_is_called_terminated():
    class Trap(Corridor):
        def step(self, action):
            observation, reward, _, truncated, info = super().step(action)
            return observation, reward, True, truncated, info

    (episode,) = play(replace(CORRIDOR, make=Trap), Always(0), ["start-2"], rngs(1), 8)
    assert (episode.ended, episode.success) == ("terminated", False)


def test_an_action_that_is_not_legal_is_named_to_the_players_and_costs_a_step():
    said = []

    class Wrong:
        def decide(self, episodes):
            said.extend(episode.last_action for episode in episodes)
            return [Decision(len(episode.actions)) for episode in episodes]

    (episode,) = play(CORRIDOR, Wrong(), ["start-2"], rngs(1), 3)
    assert said == ["", *["an action that is not legal"] * 2] and len(episode) == 3
    assert {t.observation for t in episode.transitions} == {"room 2 of 5"}


@pytest.mark.parametrize(("milestone", "first"), [(True, 1.0), (False, -0.05), (None, 1.0)])
def test_milestones_are_rewarded_where_asked_for(milestone, first):
    task = next(t for t in TAXI.tasks("full", "train") if TAXI.oracle_steps(t) > 8)
    (episode,) = play(TAXI, Scripted(TAXI, "oracle"), [task], rngs(1), 40, milestone)
    picked_up = next(i for i, t in enumerate(episode.transitions) if t.actions[t.decision.action] == "pick up")
    assert episode.transitions[picked_up].reward == pytest.approx(first)


def test_an_environment_without_milestones_is_not_asked_for_them():
    (episode,) = play(CORRIDOR, Scripted(CORRIDOR, "expert"), ["start-0"], rngs(1), 8, milestone=True)
    assert episode.success and len(episode) == 5


def test_oracle_of_an_environment_that_has_none():
    with pytest.raises(
        ReflectRLError,
        match="'corridor' has no 'oracle', but 'expert'; leave out the variant, or give its EnvSpec an `oracle_action`",
    ):
        Scripted(CORRIDOR, "oracle")


@pytest.mark.parametrize("spec", [TAXI, CORRIDOR], ids=lambda spec: spec.name)
def test_agents_rank_as_they_should(spec):
    tasks = spec.panel(spec.training_setting, "train", 10) * 5

    def played(agent):
        episodes = play(spec, agent, tasks, rngs(len(tasks)), 2 * spec.horizon)
        return np.mean([e.success for e in episodes]), np.mean([len(e) for e in episodes])

    (best, shortest), (perturbed, longer) = (
        played(Scripted(spec, "expert")),
        played(PerturbedAgent(spec, Scripted(spec, "expert"), 0.2)),
    )
    assert best == 1 and perturbed > 0.9 and shortest < longer  # it recovers, which takes steps
    assert played(Random())[0] < 1


def test_follow_does_what_is_advised_and_wastes_the_step_without_advice():
    class Words:
        def reflect(self, prompts):
            return ["Not go left. Next: go right." if "room 2" in prompt else "Well." for prompt in prompts]

    (episode,) = play(CORRIDOR, Follow(Words()), ["start-2"], rngs(1), 3)
    assert [t.decision.action for t in episode.transitions] == [1, 2, 2]
    assert episode.transitions[1].decision.reflection == "Well."


def test_labels_may_be_numbered_by_a_list(homes):
    policy, found = new_players(load_rl("sft_rl")).policy, []
    for of in (IN_ORDER.of, lambda actions: [*range(len(actions))]):
        policy.labels = replace(IN_ORDER, of=of)
        agent = PlayersAgent(policy, None)
        (episode,) = play(TAXI, agent, TAXI.tasks("full", "train")[:1], rngs(1), 5)
        shares = [agent.log_probs(t.decision.prompt, [*t.actions]).tolist() for t in episode.transitions]
        found.append((story(episode), shares))
    assert found[0] == found[1]
