import dataclasses

import pandas as pd
import pytest
import yaml

from reflect_rl.core import paths, profiles
from reflect_rl.core.config import SECTIONS, RLConfig, meanings
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs import settings

TUNING = paths.project() / "results" / "study" / "tuning.csv"
GOOD = "envs: [game]\nseeds: [0, 1]\nvariants: [random, reflect_rl]\n"
SECTION = "game:\n  policy: {steps: 50}\n"


REGIMES = """
  regimes:
    paper:
      settings: {rl.clip: 0.3}
    limited:
      grid: {data.reflections: [50, 100], teacher.tells: [hint, action]}
      settings: {data.negatives: 0}
      variants: [sft_rl, reflect_rl]
      seeds: [7]
      variant_overrides: {sft_rl: {rl.entropy: 0.5}}
"""


def load(overrides="", variant="reflect_rl", seed=0, defaults=None, regime=""):
    return profiles.load("mine", "game", variant, seed, overrides, defaults, regime=regime)


# --- messages ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"overrides": "lr.steps=3"}, ["unknown settings section 'lr'", "data, model, reflector, policy, rl, evalu"]),
        ({"overrides": "steps=3"}, ["unknown settings section 'steps'"]),
        ({"overrides": "rl.rate=3"}, ["override: unknown setting of rl 'rate'", "env_steps, episodes_per_update"]),
        ({"overrides": "policy.bucket=-1"}, ["setting policy.bucket=-1 should be a whole number from 0 on"]),
        ({"overrides": "rl.env_steps=1.5"}, ["override: setting rl.env_steps=1.5 should be a whole number"]),
        ({"overrides": "rl.entropy"}, ["override 'rl.entropy' is not of the form section.setting=value"]),
        ({"overrides": "rl.entropy="}, ["rl.entropy=None should be a number from 0 to 10"]),
        ({"overrides": "evaluation.horizons=[15"}, ["cannot be read; write lists without spaces"]),
        ({"overrides": "evaluation.horizons=20"}, ["evaluation.horizons=20 should be a list of whole numbers"]),
        ({"variant": "reflect"}, ["unknown variant 'reflect'", ", ".join(VARIANTS)]),
        ({"variant": "sft_rl:some"}, ["unknown variant 'sft_rl:some'", "prompted:<model>"]),
        ({"seed": True}, ["setting seed=True"]),
        ({"regime": "paper"}, ["unknown regime of game 'paper'; choose one of: (it has none: leave it out)"]),
        ({"defaults": {"rl.horizn": 5}}, ["the environment game: unknown setting of rl 'horizn'"]),
    ],
    ids=str,
)
def test_bad_setting_is_one_line_that_names_it_and_the_choices(write, arguments, words):
    write(GOOD + SECTION)
    with pytest.raises(ReflectRLError) as error:
        load(**arguments)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("random", "lucky") + SECTION, "mine.yaml, variants.0: Input should be 'random', 'oracle'"),
        (GOOD.replace(", reflect_rl", "") + SECTION, "leaves out 'reflect_rl', with which others are compared"),
        (GOOD, "configs/mine.yaml has no section 'game'"),
        (GOOD + "game:\n", "configs/template.yaml"),
        (GOOD.replace("seeds: [0, 1]\n", "") + SECTION, "mine.yaml, seeds: Field required; see configs/template.yaml"),
        (GOOD.replace("[0, 1]", "[0, 0]") + SECTION, "mine.yaml, seeds: list at least one, and each once"),
        (GOOD.replace("[0, 1]", "[0, -1]") + SECTION, "mine.yaml, seeds.1: Input should be greater than or equal to 0"),
        (GOOD.replace("[0, 1]", "3") + SECTION, "mine.yaml, seeds: Input should be a valid list"),
        (GOOD + "game: {rl: 5}\n", "mine.yaml, game.rl: Input should be a valid dictionary; see"),
        (GOOD + "game: 5\n", "mine.yaml, game: Input should be a valid dictionary; see"),
        (GOOD + "game: {variant_overrides: {sft_rl: 3}}\n", "game.variant_overrides.sft_rl: Input should be a valid"),
        (
            GOOD + "game: {variant_overrides: {lucky: {}}, rl: {}}\n",
            "game.variant_overrides.lucky.[key]: Input should be 'random'",
        ),
        (GOOD + "game: {variants: [reflect_rl, lucky]}\n", "game.variants.1: Input should be 'random'"),
        (GOOD + "game: {variants: [expert], rl: {clip: 0.2}}\n", "leaves out 'reflect_rl'"),
        (GOOD + "game: {variants: [reflect_rl]}\n", "configs/mine.yaml has no section 'game' with the settings"),
        (GOOD + SECTION + "tuned: {rl_only: {rl.clip: 0.2}}\n", "section tuned: unknown settings section 'rl_only'"),
        (
            GOOD + SECTION + "variant_overrides: {rl_only: {rl.clip: 0.2}}\n",
            "section variant_overrides: unknown settings",
        ),
        (
            GOOD + "game: {rl: {clip: 0.2}, variant_overrides: {sft_rl: {rl.clipp: 0.2}}}\n",
            "variant_overrides of sft_rl: unknown setting of rl 'clipp'",
        ),
        (
            GOOD + "game: {rl: {clip: 0.2}, variant_overrides: {sft_rl: {rl: {clip: 0.2}}}}\n",
            "variant_overrides of sft_rl: 'rl' is a section of settings; name one of them, such as rl.setting",
        ),
        (GOOD + SECTION + "other: {rl: {clip: 2}}\n", "section other: setting rl.clip=2 should be a number above 0"),
        (GOOD + "game: {variants: reflect_rl}\n", "game.variants: Input should be a valid list"),
        (GOOD + "game:\n  policy: {steps: 5}\n  policy: {batch_size: 7}\n", "policy twice in the mapping of line 5"),
        (GOOD + "game: {regimes: {}}\n", "mine.yaml, game.regimes: Dictionary should have at least 1 item"),
        (GOOD + "game: {regimes: {50: {}}}\n", "game.regimes.50.[key]: Input should be a valid string"),
        (GOOD + "game: {regimes: {a/b: {}}}\n", "game.regimes.a/b.[key]: String should match pattern"),
        (
            GOOD + "game: {regimes: {a: {setting: {}}}}\n",
            "game.regimes.a.setting: Extra inputs are not permitted; a regime's settings stand below `settings`",
        ),
        (GOOD + "game: {regimes: {a: {seeds: []}}}\n", "game.regimes.a.seeds: list at least one, and each once"),
        (GOOD + "game: {regimes: {a: {grid: {}}}}\n", "game.regimes.a.grid: Dictionary should have at least 1 item"),
        (GOOD + "game: {regimes: {a: {grid: {rl.clip: []}}}}\n", "a.grid.rl.clip: List should have at least 1 item"),
        (
            GOOD + "game: {regimes: {a: {grid: {rl.clip: [0.1, 0.2, 0.1]}}}}\n",
            "mine.yaml, game.regimes: two regimes have the name a-0.1",
        ),
        (
            GOOD + "game: {regimes: {a-0.1: {}, a: {grid: {rl.clip: [0.1]}}}}\n",
            "game.regimes: two regimes have the name a-0.1",
        ),
        (
            GOOD + "game: {regimes: {a: {settings: {rl.clip: 0.1}, grid: {rl.clip: [0.2]}}}}\n",
            "game.regimes: regime a has rl.clip in its settings and in its grid",
        ),
        (GOOD + "game: {regimes: {a: {}, a: {}}}\n", "a twice in the mapping of line 4"),
        (
            GOOD + "game: {regimes: {a: {settings: {rl.clipp: 0.1}}}}\n",
            "configs/mine.yaml, regime a of game: unknown setting of rl 'clipp'",
        ),
        (
            GOOD + "game: {regimes: {a: {grid: {rl.clip: [0.1, 2]}}}}\n",
            "regime a-2 of game: setting rl.clip=2 should be a number above 0",
        ),
        (
            GOOD + "game: {regimes: {a: {variant_overrides: {sft_rl: {rl.clipp: 0.1}}}}}\n",
            "regime a of game, variant_overrides of sft_rl: unknown setting of rl 'clipp'",
        ),
        (GOOD + "game: {regimes: {a: {variants: [sft_rl]}}}\n", "leaves out 'reflect_rl'"),
        (
            GOOD + SECTION + "tuning: {game: {variants: [sft_rl], seeds: [9], grid: {rl.clip: [1]}, regime: a}}\n",
            "unknown regime of game 'a'; choose one of",
        ),
        ("envs: [game\n", "configs/mine.yaml is not valid YAML"),
        ("- 5\n", "mine.yaml, envs: Field required; see configs/template.yaml"),
    ],
)
def test_bad_profile_is_one_line(write, text, words):
    write(text)
    with pytest.raises(ReflectRLError) as error:
        profiles.profile("mine")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_profile_lists_those_that_there_are(write):
    write(GOOD + SECTION)
    with pytest.raises(
        ReflectRLError,
        match="unknown profile 'mien'; choose one of: mine; for one of your own copy configs/template.yaml to configs/mien.yaml",
    ):
        profiles.load("mien", "game")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("rl: {env_stepz: 3}", "configs/mine.yaml, section game: unknown setting of rl 'env_stepz'"),
        ("rll: {env_steps: 3}", "section game: unknown settings section 'rll'"),
        ("tuned: {sft_rl: {}, reflect_rl: {rl.clip: 0.1}}", "unknown setting"),
        (
            "variant_overrides: {reflect_rl: {rl.clipp: 0.4}}",
            "variant_overrides of reflect_rl: unknown setting of rl 'cl",
        ),
    ],
)
def test_misspelt_setting_in_a_profile_is_named(write, section, message):
    write(GOOD + f"game: {{{section}}}\n")
    with pytest.raises(ReflectRLError, match=message):
        load()


# --- layers ---


def test_each_layer_wins_over_those_before_it(write):
    text = "game:\n  rl: {clip: 0.2, entropy: 0.2}\n  variant_overrides: {reflect_rl: {rl.entropy: 0.3}}\n"
    write(GOOD + text)
    defaults = {"rl.replay": 9, "rl.clip": 0.9, "rl.entropy": 0.9}
    run = load("rl.horizon=7", defaults=defaults)
    assert (run.rl.horizon, run.rl.entropy, run.rl.clip, run.rl.replay) == (7, 0.3, 0.2, 9)
    assert run.rl.max_grad_norm == RLConfig().max_grad_norm
    assert load(variant="sft_rl", defaults=defaults).rl.entropy == 0.2
    assert load("rl.entropy=0.4", defaults=defaults).rl.entropy == 0.4


def test_what_is_in_force_says_where_it_comes_from_and_what_it_replaces(write):
    text = "game:\n  evaluation: {repeats: 2}\n  rl: {clip: 0.2}\n  variant_overrides: {prompted: {evaluation.repeats: 1}}\n"
    write(GOOD + text)
    shown = {key: (value, source) for key, value, source in profiles.describe(load(variant="prompted"))}
    mine, overridden = "configs/mine.yaml, section game", "configs/mine.yaml, variant_overrides of prompted"
    assert shown["evaluation.repeats"] == (1, f"{overridden}, instead of 2 of {mine}")
    assert shown["rl.clip"] == (0.2, mine)
    assert shown["rl.entropy"] == (RLConfig().entropy, "default")
    shown = {key: (value, source) for key, value, source in profiles.describe(load("rl.clip=0.3 rl.objective=pg"))}
    assert shown["rl.clip"] == (0.3, f"override, instead of 0.2 of {mine}")
    assert shown["rl.epochs"] == (1, "default of rl.objective=pg")


def test_an_edit_of_a_section_is_in_force_for_every_variant(write):
    """Of old a copied section of tuned values won over `policy: {steps: 50}` without a word."""
    write(GOOD + SECTION)
    assert {load(variant=variant).policy.steps for variant in VARIANTS} == {50}


def test_without_a_section_the_environment_must_say_how_long_to_train(write):
    write(GOOD)
    with pytest.raises(ReflectRLError, match="no section 'game'.*write one as in configs/template.yaml"):
        load(defaults={"rl.horizon": 5})
    assert load(defaults={"rl.env_steps": 500}).rl.env_steps == 500


def test_an_arm_lacks_milestones_or_has_stages_unless_told(write):
    write(GOOD + "game:\n  rl: {stage_shares: [0.2, 0.1]}\n")
    variants = ("reflect_rl", "reflect_rl_no_milestones", "reflect_rl_stages")
    full, no_milestones, stages = (load(variant=variant) for variant in variants)
    assert (full.rl.milestone, full.rl.stage_shares) == (True, ())
    assert "instead of (0.2, 0.1)" in full.sources["rl.stage_shares"]
    assert (no_milestones.rl.milestone, no_milestones.rl.stage_shares) == (False, ())
    assert (stages.rl.milestone, stages.rl.stage_shares) == (True, (0.2, 0.1))
    assert load("rl.milestone=true", "reflect_rl_no_milestones").rl.milestone
    assert load("rl.stage_shares=[0.3]").rl.stage_shares == (0.3,)


# --- regimes ---


def test_a_grid_is_a_regime_for_each_of_its_points(write):
    write(GOOD + SECTION + REGIMES)
    found = profiles.profile("mine")
    limited = ("limited-50-hint", "limited-50-action", "limited-100-hint", "limited-100-action")
    assert found.regimes_of("game") == ("paper", *limited) and found.regimes_of("other") == ("",)
    run = load(regime="limited-100-hint")
    assert (run.regime, run.data.reflections, run.teacher.tells, run.data.negatives) == (
        *("limited-100-hint", 100, "hint", 0),
    )
    with pytest.raises(
        ReflectRLError, match="unknown regime of game 'limited'; choose one of: paper, limited-50-hint, "
    ):
        load(regime="limited")


def test_the_first_regime_is_the_default(write):
    write(GOOD + SECTION + REGIMES)
    assert load() == load(regime="paper") != load(regime="limited-50-hint")
    assert load().sources["rl.clip"] == "configs/mine.yaml, regime paper of game"
    write(GOOD + SECTION)
    assert load().regime == ""
    write(GOOD + "game:" + REGIMES)  # a section with regimes alone
    assert load().rl.clip == 0.3 and profiles.profile("mine").stem("game", "paper") == "game_paper"


def test_a_regime_wins_over_its_section_and_its_overrides_over_those_of_the_section(write):
    text = "game:\n  rl: {clip: 0.2, entropy: 0.2, stage_shares: [0.1]}\n"
    text += "  variant_overrides: {sft_rl: {rl.entropy: 0.3, rl.clip: 0.4}}\n"
    regimes = "  regimes:\n    a: {settings: {rl.entropy: 0.6, rl.clip: 0.6, rl.stage_shares: [0.6]},"
    write(GOOD + text + regimes + " variant_overrides: {sft_rl: {rl.entropy: 0.7}}}\n")
    assert (load().rl.entropy, load().rl.clip) == (0.6, 0.6)
    run = load(variant="sft_rl")
    assert (run.rl.entropy, run.rl.clip) == (0.7, 0.4)
    assert run.sources["rl.entropy"] == (
        "configs/mine.yaml, regime a of game, variant_overrides of sft_rl, "
        "instead of 0.3 of configs/mine.yaml, variant_overrides of sft_rl"
    )
    assert load(variant="reflect_rl_stages").rl.stage_shares == (0.6,)
    assert load("rl.entropy=0.8", "sft_rl").rl.entropy == 0.8


def test_a_regime_may_have_variants_and_seeds_of_its_own(write):
    write(GOOD + SECTION + REGIMES)
    found = profiles.profile("mine")
    assert found.variants_of("game") == found.variants_of("game", "paper") == ("random", "reflect_rl")
    assert found.variants_of("game", "limited-50-hint") == ("sft_rl", "reflect_rl")
    assert found.seeds_of("sft_rl", "game") == (0, 1) and found.seeds_of("sft_rl", "game", "limited-50-hint") == (7,)
    runs = list(found.runs_of("game"))
    assert runs[:2] == [("paper", "random", 0), ("paper", "random", 1)] and len(runs) == 4 + 4 * 2
    assert runs[-1] == ("limited-100-action", "reflect_rl", 7)


def test_overrides_are_read_by_type_and_sorted_and_the_later_of_two_counts(write):
    write(GOOD + SECTION)
    run = load("rl.learning_rate=3e-3 rl.entropy=1 evaluation.horizons=[10,12] rl.milestone=false rl.entropy=2")
    assert (run.rl.learning_rate, run.rl.entropy, run.evaluation.horizons, run.rl.milestone) == (
        0.003,
        2,
        (10, 12),
        False,
    )
    assert [key for key, _ in run.overrides] == [
        "evaluation.horizons", "rl.entropy", "rl.learning_rate", "rl.milestone",
    ]  # fmt: skip
    assert load("rl.clip=0.2 rl.entropy=0.5") == load("rl.entropy=0.5 rl.clip=0.2")


def test_a_prompted_variant_may_name_its_model(write):
    write(GOOD + SECTION)
    run = load(variant="prompted:some/model")
    assert (run.variant, run.prompted.model, run.model_name) == ("prompted", "some/model", "some/model")


# --- grids ---


def test_an_environment_may_have_variants_of_its_own_and_prompted_ones_have_one_seed(write):
    own = "other: {variants: [reflect_rl, expert], rl: {clip: 0.2}}\n"
    write(GOOD.replace("[game]", "[game, other]") + SECTION + own)
    found = profiles.profile("mine")
    assert found.variants_of("game") == ("random", "reflect_rl")
    assert found.variants_of("other") == ("reflect_rl", "expert")
    assert (found.seeds_of("reflect_rl"), found.seeds_of("prompted")) == ((0, 1), (0,))
    assert profiles.chosen(found, "") == ("game", "other") and profiles.chosen(found, "game") == ("game",)
    with pytest.raises(ReflectRLError, match="unknown environment 'gmae'; choose one of: game, other"):
        profiles.chosen(found, "gmae")


def test_tuning_grids(write):
    grid = "{variants: [sft_rl, reflect_rl], seeds: [9], grid: {rl.clip: [0.1, 0.2], evaluation.horizons: [[5, 6]]}}"
    write(GOOD + SECTION + f"tuning:\n  game: {grid}\n")
    jobs = profiles.tuning("mine")
    assert len(jobs) == 4 and jobs == profiles.tuning("mine", "game")
    assert jobs[0] == (
        "game",
        "",
        "sft_rl",
        9,
        "rl.clip=0.1 evaluation.horizons=[5,6]",
        "rl.clip=0.1,evaluation.horizons=[5,6]",
    )
    assert load(jobs[0][4]).evaluation.horizons == (5, 6)
    for regime, given in (("paper", ""), ("limited-50-hint", ", regime: limited-50-hint")):
        write(GOOD + SECTION + REGIMES + f"tuning:\n  game: {grid[:-1]}{given}}}\n")
        assert {job[1] for job in profiles.tuning("mine")} == {regime}
    write(GOOD + SECTION + "tuning:\n  game: {variants: [reflect_rl], seeds: [9], grid: {model.lora: [16/8/0]}}\n")
    assert [job[4:] for job in profiles.tuning("mine")] == [("model.lora=16/8/0", "model.lora=16-8-0")]
    for empty in ("grid: {}", "grid: {rl.clip: []}"):
        write(GOOD + SECTION + f"tuning:\n  game: {{variants: [reflect_rl], seeds: [9], {empty}}}\n")
        with pytest.raises(ReflectRLError, match="tuning.game.0.grid.* should have at least 1 item"):
            profiles.tuning("mine")
    write(GOOD + SECTION + "tuning:\n  game: {grid: {rl.clip: [0.1]}}\n")
    with pytest.raises(ReflectRLError, match="tuning.game.0.variants: Field required"):
        profiles.tuning("mine")
    write(GOOD + SECTION)
    with pytest.raises(ReflectRLError, match="profile 'mine': no tuning grid; add one below `tuning:` in configs/mine"):
        profiles.tuning("mine")
    with pytest.raises(ReflectRLError, match="profile 'mine' and environment 'game': no tuning grid"):
        profiles.tuning("mine", "game")


# --- the project's own ---


@pytest.mark.parametrize("name", sorted({path.stem for path in paths.configs().glob("*.yaml")} - {"claims"}))
def test_every_profile_loads_for_all_it_lists(name):
    found = settings.profile(name)
    raw = yaml.safe_load((paths.configs() / f"{name}.yaml").read_text())
    for env in raw.keys() - {"envs", "seeds", "variants", "tuning"}:  # one beside `envs` runs notebook by notebook
        for regime, variant, seed in found.runs_of(env):
            settings.load(name, env, variant, seed, regime=regime)


def test_the_template_shows_every_part_of_a_profile():
    text = (paths.configs() / "template.yaml").read_text()
    raw = yaml.safe_load(text)
    assert {"envs", "seeds", "variants"} < raw.keys() and len(raw["seeds"]) >= 5
    assert all(
        word in text
        for word in ("variant_overrides:", "tuning:", "variants:", "regimes:", "base:", "settings --profile")
    )
    assert len(text.splitlines()) < 40


def test_laptop_has_at_least_five_seeds_and_every_variant():
    found = profiles.profile("laptop")
    assert len(set(found.seeds)) >= 5
    listed = set(found.variants).union(*map(found.variants_of, found.envs))
    beyond = {"reflect_sft_texts", "reflect_rl_texts", "reflect_rl_both"}
    extra = {"embeddings"}  # whose weights are an extra
    assert listed == set(VARIANTS) - beyond - extra


def test_what_is_compared_elsewhere_has_the_settings_of_the_study():
    ours, studied = (yaml.safe_load((paths.configs() / f"{of}.yaml").read_text())["taxi"] for of in ("beyond", "study"))
    own = ours.keys() - {"regimes"}
    assert own and {key: ours[key] for key in own} == {key: studied[key] for key in own}
    assert ours["regimes"]["texts"]["settings"] == studied["regimes"]["paper"]["settings"]


@pytest.mark.parametrize("name", ["laptop", "study", "beyond"])
def test_all_variants_have_the_same_budget_of_environment_steps_on_the_same_engine(name):
    found = settings.profile(name)
    for env in found.envs:
        for regime in found.regimes_of(env):
            trained = [v for v in found.variants_of(env, regime) if VARIANTS[v].rl]
            runs = [settings.load(name, env, v, regime=regime).rl for v in trained]
            tuned = {"learning_rate": 0.1, "reflector_learning_rate": 0.1}
            tuned |= {"milestone": True, "stage_shares": ()}  # what the ablations are about
            assert len({dataclasses.replace(run, **tuned) for run in runs}) == 1


def test_tuning_tries_one_grid_for_every_arm_on_seeds_of_its_own():
    first, *more = [grid for grid in profiles.profile("study").tuning["taxi"] if grid.regime == "paper"]
    trained = {v for v in profiles.profile("study").variants_of("taxi", "paper") if VARIANTS[v].rl}
    assert set(first.variants) == trained
    *tries, without_replay = more
    for grid in tries:  # others have more tries, not fewer
        assert set(grid.variants) <= {*first.variants, "sft_only"} - {"reflect_rl"}
    assert without_replay.grid["rl.replay"] == [0]  # which is shown, and not chosen
    jobs = settings.tuning("study", "taxi")
    for env, regime, variant, seed, overrides, slug in jobs:
        run = settings.load("study", env, variant, seed, overrides, regime)  # every point is a valid setting
        assert run.evaluation.split == "validation" and " " not in slug
    assert not {job[3] for job in jobs} & set(profiles.profile("study").regime("taxi", "paper")[1].seeds)


def not_in_force(table, name):
    """(env, variant, setting) of the chosen points of a tuning table whose value the profile does not have."""
    wrong = []
    for (env, regime, variant), rows in table[table.chosen == 1].groupby(["env", "regime", "variant"]):
        run, arm = settings.load(name, env, variant, regime=regime), VARIANTS[variant]
        (point,) = rows.overrides[~rows.overrides.str.contains("rl.replay")].unique()
        used = {"policy": bool(arm.warmup), "data": bool(arm.warmup), "rl": arm.rl}
        for key, value in profiles.parse(point):
            section, name_of = key.split(".")
            if used.get(section, False) and getattr(getattr(run, section), name_of) != value:
                wrong.append((env, variant, key))
    return wrong


@pytest.mark.parametrize("name", ["laptop", "study"])
def test_the_settings_are_the_points_that_tuning_chose(name):
    table = pd.read_csv(TUNING)
    assert len(table) > 80 and not_in_force(table, name) == []
    worse = table.assign(overrides=table.overrides.str.replace("rl.learning_rate=0.0003", "rl.learning_rate=0.0004"))
    assert ("taxi", "rl_only", "rl.learning_rate") in not_in_force(worse, name)


def test_what_a_setting_means_is_the_comment_behind_it_or_above_it():
    means = meanings()
    assert set(means) == {f"{section}.{name}" for section, cls in SECTIONS.items() for name in cls.__dataclass_fields__}
    assert means["data.horizon"] == "steps after which a trajectory is cut"
    assert means["data.reflections"].endswith("0: one on every situation")  # it stands above
    assert all(means.values())
