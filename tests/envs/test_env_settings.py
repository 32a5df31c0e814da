"""Settings with an environment's share: its defaults, what it lacks, and the hash of its code."""

import sys
import textwrap

import pytest
from small_corridor import BARE, SPEC, changed

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs import registry, settings
from reflect_rl.envs.labels import by_name

BUDGET = {"rl.env_steps": 100}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Two games beside the library's own."""
    specs = (changed(defaults=BUDGET), changed(name="plain", gym_id="", defaults=BUDGET, **PLAIN))
    known = registry._registered | {spec.name: spec for spec in specs}
    monkeypatch.setattr(registry, "_registered", known)


PLAIN = {"stages": (), "milestones": False, "oracle_action": None, "oracle_steps": None}


# --- defaults ---


def test_the_taxi_has_its_horizons_and_stages(write):
    write("envs: [taxi]\nseeds: [0]\nvariants: [reflect_rl]\ntaxi:\n  policy: {steps: 5}\n")
    config = settings.load("mine", "taxi", "reflect_rl_stages")
    assert (config.rl.horizon, config.rl.stage_shares, config.rl.milestone) == (20, (0.2, 0.1), True)
    assert (config.evaluation.horizons, config.data.horizon) == ((15, 20), 40)
    assert config.env_code == settings.spec_code(registry.get("taxi"))
    assert settings.load("mine").env == "taxi"  # the first of the profile


def test_what_a_spec_does_not_say_follows_from_it():
    corridor, plain = settings.load("smoke", "corridor"), settings.load("smoke", "plain")
    assert (corridor.rl.horizon, corridor.evaluation.horizons, corridor.rl.env_steps) == (6, (6,), 100)
    assert (corridor.rl.stage_shares, corridor.rl.milestone) == ((), True)
    assert settings.load("smoke", "corridor", "reflect_rl_stages").rl.stage_shares == (0.1,)
    assert (plain.rl.stage_shares, plain.rl.milestone) == ((), False)
    assert settings.defaults(changed(horizon=100))["data.horizon"] == 100
    assert settings.defaults(changed(claims_horizon=3))["evaluation.horizons"] == (3, 6)


def test_a_profile_wins_over_the_environment_and_says_so(write):
    write("envs: [corridor]\nseeds: [0]\nvariants: [reflect_rl]\ncorridor:\n  rl: {horizon: 9}\n")
    config = settings.load("mine")
    assert (config.env, config.rl.horizon, config.rl.env_steps) == ("corridor", 9, 100)
    assert config.sources["rl.horizon"] == (
        "configs/mine.yaml, section corridor, instead of 6 of the environment corridor"
    )


def test_a_default_that_is_no_setting_is_named():
    registry._registered["corridor"] = changed(defaults=BUDGET | {"rl.horizons": 3})
    with pytest.raises(ReflectRLError, match="the environment corridor: unknown setting of rl 'horizons'"):
        settings.load("smoke", "corridor")


# --- what an environment lacks ---


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"env": "taxy"}, "unknown environment 'taxy'; choose one of: taxi, alfworld, "),
        ({"profile": "nope", "env": "taxy"}, "unknown environment 'taxy'"),
        ({"variant": "reflect"}, "unknown variant 'reflect'; choose one of: random, "),
        (
            {"env": "plain", "variant": "reflect_rl_no_milestones"},
            "environment 'plain' has no variant 'reflect_rl_no_milestones': training has no milestones that could be left "
            "out (rl.milestone is false); choose another",
        ),
        (
            {"env": "plain", "variant": "reflect_rl_stages"},
            "environment 'plain' has no variant 'reflect_rl_stages': training has no easier stages to begin with "
            "(rl.stage_shares is empty); choose another",
        ),
        (
            {"variant": "reflect_rl_stages", "overrides": "rl.stage_shares=[]"},
            "'taxi' has no variant 'reflect_rl_stages': training has no easier",
        ),
        (
            {"variant": "reflect_rl_no_milestones", "overrides": "rl.milestone=false"},
            "'taxi' has no variant 'reflect_rl_no_milestones': training has no milestones",
        ),
        ({"regime": "paper"}, "unknown regime of taxi 'paper'; choose one of: (it has none: leave it out)"),
        ({"env": "plain", "variant": "oracle"}, "environment 'plain' has no variant 'oracle': it has no oracle"),
        (
            {"env": "plain", "overrides": "rl.stage_shares=[0.2]"},
            "setting rl.stage_shares=[0.2], but environment 'plain' has 0 easier stages (none)",
        ),
        (
            {"env": "taxi", "overrides": "rl.stage_shares=[0.2]"},
            "environment 'taxi' has 2 easier stages (pickup, dropoff); give one share each, or []",
        ),
        ({"env": "plain", "overrides": "rl.milestone=true"}, "rl.milestone=True, but environment 'plain' has none"),
    ],
)
def test_what_an_environment_does_not_have_is_refused_in_words(given, said):
    with pytest.raises(ReflectRLError) as error:
        settings.load(**{"profile": "smoke", "env": "taxi"} | given)
    assert said in str(error.value)


def test_an_environment_may_have_milestones_and_no_stages():
    registry._registered["plain"] = changed(**PLAIN | {"milestones": True}, defaults=BUDGET)
    config = settings.load("smoke", "plain", "reflect_rl_no_milestones")
    assert (config.rl.milestone, config.rl.stage_shares) == (False, ())
    assert settings.load("smoke", "plain").rl.milestone
    with pytest.raises(ReflectRLError, match="no easier stages to begin with"):
        settings.load("smoke", "plain", "reflect_rl_stages")


def test_a_prompted_variant_may_name_its_model():
    config = settings.load("smoke", "taxi", "prompted:some/model")
    assert (config.variant, config.prompted.model) == ("prompted", "some/model")


def test_a_profile_leaves_out_what_an_environment_has_no_use_for(write):
    variants = "[oracle, reflect_rl, reflect_rl_no_milestones, reflect_rl_stages]"
    write(
        f"envs: [corridor, plain]\nseeds: [0]\nvariants: {variants}\ncorridor:\n  policy: {{steps: 5}}\n"
        "  regimes: {a: {}, b: {settings: {rl.stage_shares: []}}}\nplain:\n  policy: {steps: 5}\n"
    )
    profile = settings.profile("mine")
    without = ("oracle", "reflect_rl", "reflect_rl_no_milestones")
    assert profile.variants_of("corridor") == (*without, "reflect_rl_stages")
    assert profile.variants_of("corridor", "b") == without
    assert profile.variants_of("plain") == ("reflect_rl",)
    assert settings.load("mine", "corridor", regime="b").regime == "b" and settings.load("mine").regime == "a"
    assert settings.chosen(profile, "") == ("corridor", "plain") and settings.chosen(profile, "plain") == ("plain",)


def test_unknown_environments_of_a_profile_are_named(write):
    write("envs: [taxy]\nseeds: [0]\nvariants: [reflect_rl]\ntaxy:\n  policy: {steps: 5}\n")
    for ask in (settings.profile, settings.load):
        with pytest.raises(ReflectRLError, match="unknown environment 'taxy'; choose one of: taxi, alfworld"):
            ask("mine")


def test_an_environment_is_chosen_among_those_of_the_profile():
    smoke = settings.profile("smoke")
    with pytest.raises(ReflectRLError, match="unknown environment 'corridor'; choose one of: taxi$"):
        settings.chosen(smoke, "corridor")


# --- the hash of the code ---

GAME = '''
    """A game of another package."""
    from small_corridor import Corridor, tasks, teach
    from my_rules import expert

    class Game(Corridor):
        def hint(self):
            return "right"
'''
RULES = '''
    def expert(env):
        """Right."""
        return 1
'''


def code_of(folder, monkeypatch, game=GAME, rules=RULES, **fields):
    """`spec_code` of an environment whose modules lie in a folder, freshly imported."""
    monkeypatch.syspath_prepend(folder)
    for name, text in (("my_game", game), ("my_rules", rules)):
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, name, raising=False)
    import my_game
    import my_rules

    return settings.spec_code(changed(make=my_game.Game, expert_action=my_rules.expert, **fields))


def test_code_decides_comments_and_docstrings_do_not(tmp_path, monkeypatch):
    first = code_of(tmp_path, monkeypatch)
    assert first == code_of(tmp_path, monkeypatch, GAME.replace("A game", "# A very good game"))
    assert first == code_of(tmp_path, monkeypatch, rules=RULES.replace("Right.", "To the right."))
    assert first != code_of(tmp_path, monkeypatch, GAME.replace('"right"', '"left"'))
    assert first != code_of(tmp_path, monkeypatch, rules=RULES.replace("return 1", "return 2"))


def test_values_that_decide_numbers_belong_to_the_code_and_those_for_readers_do_not():
    first = settings.spec_code(SPEC)
    deciding = (
        {"stages": ()},
        {"horizon": 7},
        {"tokenizer_pattern": "a"},
        {"goal": "Out."},
        {"settings": ("full", "x")},
    )
    for fields in deciding:
        assert settings.spec_code(changed(**fields)) != first
    for fields in ({"draw": "small_corridor:x"}, {"reported_on": "ten maps"}, {"defaults": BUDGET}):
        assert settings.spec_code(changed(**fields)) == first


def test_the_rule_of_labels_belongs_to_the_code(tmp_path, monkeypatch):
    """What `by_name` is given may be defined anywhere."""
    monkeypatch.syspath_prepend(tmp_path)

    def code(rule):
        (tmp_path / "my_labels.py").write_text(f"def label_key(action):\n    return {rule}\n")
        monkeypatch.delitem(sys.modules, "my_labels", raising=False)
        import my_labels

        return settings.spec_code(changed(labels=by_name(my_labels.label_key, 8)))

    assert code("action[:2]") == code("action[:2]  # short") != code("action[:5]")
    assert settings.spec_code(changed(labels=by_name(str, 9))) != settings.spec_code(changed(labels=by_name(str, 8)))


def test_the_hash_does_not_depend_on_drawing_or_registration():
    from reflect_rl.core import identity

    taxi = registry.get("taxi")
    before = identity.module_hashes
    seen = []
    try:
        identity.module_hashes = lambda *args: seen.append(before(*args)) or seen[-1]
        settings.spec_code(taxi)
    finally:
        identity.module_hashes = before
    modules = set().union(*seen)
    assert {"reflect_rl.envs.taxi.env", "reflect_rl.envs.taxi.teacher", "reflect_rl.envs.labels"} <= modules
    assert not {"reflect_rl.envs.taxi.draw", "reflect_rl.envs.taxi.spec"} & modules


def test_a_spec_without_optional_functions_has_a_hash_too():
    assert settings.spec_code(BARE) != settings.spec_code(SPEC)
