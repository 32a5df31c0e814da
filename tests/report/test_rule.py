import pytest

from reflect_rl.core import paths
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.registry import get
from reflect_rl.envs.settings import profile
from reflect_rl.report.rule import Rule, read_rule

GOOD = """
seeds_of_regime: {taxi: {paper: 10}}
claims: {1: It is better., RL: So is RL.}
comparisons:
  game:
    - &first {claim: 1, comparison: [reflect_rl, sft_rl], regime: r, setting: s, horizon: 5, split: test, decoding: sampled}
    - {<<: *first, claim: RL}
"""


@pytest.fixture
def judge_by(write):
    write("")
    return paths.claims().write_text


def test_a_rule_is_what_its_file_says(judge_by):
    judge_by(GOOD)
    rule = read_rule()
    first, second = rule.comparisons["game"]
    assert (first.claim, first.comparison, first.horizon) == ("1", ("reflect_rl", "sft_rl"), 5)
    assert second == first.model_copy(update={"claim": "RL"})
    assert rule.in_words.startswith("Claims:\n\n- 1. It is better.\n- RL. So is RL.\n\nVerdicts:\n\n- *reproduced*: ")
    assert "below 0.05 after Holm" in rule.in_words and "fewer than 5 seeds" in rule.in_words
    assert rule.seeds_of_regime == {"taxi": {"paper": 10}}


def test_a_project_without_a_rule_compares_nothing(judge_by):
    assert read_rule() == Rule() and not Rule().comparisons
    judge_by("# nothing yet\n")
    assert read_rule() == Rule()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("claims: {", "claims: [", "configs/claims.yaml is not valid YAML: "),
        ("seeds_of", "sedes_of", "claims.yaml, sedes_of_regime: Extra inputs are not permitted"),
        ("10}}", "0}}", "claims.yaml, seeds_of_regime.taxi.paper: Input should be greater than 0"),
        ("sft_rl]", "sft]", "claims.yaml, comparisons.game.0.comparison.1: Input should be 'random', "),
        ("[reflect_rl, sft_rl]", "[sft_rl]", "claims.yaml, comparisons.game.0.comparison.1: Field required"),
        ("sft_rl]", "reflect_rl]", "claims.yaml: comparisons.game.0.comparison: reflect_rl with itself; name two"),
        ("horizon: 5, ", "", "claims.yaml, comparisons.game.0.horizon: Field required"),
        ("split: test", "split: tset", "claims.yaml, comparisons.game.0.split: Input should be 'train', 'validation'"),
        ("claim: RL", "claim: LR", "claims.yaml: comparisons.game.1.claim: unknown 'LR'; choose one of: 1, RL"),
        (", claim: RL}", "}", "claims.yaml: comparisons.game.1: a comparison that is listed before; list each once"),
        ("claims: {", "alpha: 5\nclaims: {", "claims.yaml, alpha: Input should be less than 1"),
        (GOOD, "- 1", "configs/claims.yaml: Input should be a valid dictionary"),
    ],
)
def test_mistakes_are_named_with_their_place_in_one_line(judge_by, old, new, message):
    judge_by(GOOD.replace(old, new, 1))
    with pytest.raises(ReflectRLError) as error:
        read_rule()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_rule_is_no_profile(judge_by):
    judge_by(GOOD)
    with pytest.raises(ReflectRLError, match="unknown profile 'claims'; choose one of: mine$"):
        profile("claims")


# --- the project's own ---


def test_the_projects_rule_compares_what_is_played():
    rule = read_rule()
    assert set(rule.claims) == {*"1234567", "RL"}
    assert {*"1234567", "RL"} == {entry.claim for entries in rule.comparisons.values() for entry in entries}
    ten = {"paper", "limited-200-hint", "texts", "texts-limited"}
    assert {name for named in rule.seeds_of_regime.values() for name in named} == ten
    for env, entries in rule.comparisons.items():
        spec = get(env)
        for entry in entries:
            played = profile("beyond" if entry.regime in ("texts", "texts-limited") else "study")
            assert entry.setting in spec.settings and entry.horizon in spec.defaults["evaluation.horizons"]
            assert "reflect_rl" in entry.comparison
            assert set(entry.comparison) <= set(played.variants_of(env, entry.regime))
            seeds = rule.seeds_of_regime.get(env, {}).get(entry.regime, rule.seeds)
            assert len(played.seeds_of("reflect_rl", env, entry.regime)) >= seeds
    beyond = profile("beyond")
    for entry in rule.contrasts["taxi"]:
        assert entry.setting == get("taxi").headline and entry.horizon == get("taxi").claims_horizon
        assert all(variant in beyond.variants_of("taxi", regime) for regime, variant in entry.of)
