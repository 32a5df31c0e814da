"""What the paper claims and reports, the variants compared, and when a claim counts as reproduced.

Zhou, Du & Li, "Reflect-RL: Two-Player Online RL Fine-Tuning for LMs", ACL 2024,
doi 10.18653/v1/2024.acl-long.56.
"""

from dataclasses import dataclass

import pandas as pd

REPORTED_SOURCE = "secondary source: a summary of the paper's tables, not checked against the paper itself"

#: What the claims are judged on: one row of the results for each variant and setting, at the horizon of the environment.
HEADLINE = {"split": "test", "decoding": "sampled"}
MODEL = "GPT-2 XL"  # of its trained players
HORIZON = {"taxi": 20, "alfworld": 15}

#: What the paper's rates were measured on.
SAMPLE = {"taxi": "100 random maps", "alfworld": "100 runs (4 tasks of 25)"}


def on_headline(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of results that the claims are judged on."""
    kept = frame["horizon"] == frame["env"].map(HORIZON)
    for column, value in HEADLINE.items():
        kept &= frame[column] == value
    return frame[kept]


@dataclass(frozen=True)
class Variant:
    label: str
    description: str


VARIANTS = {
    "random": Variant("Random", "Picks uniformly among the legal actions."),
    "oracle": Variant("Oracle", "Takes an optimal action at every step."),
    "expert": Variant("Explorer", "Does the best that can be known from what it has seen."),
    "follow": Variant("Follow", "Obeys the reflection at every step; no policy is trained."),
    "sft_only": Variant("SFT only", "Policy after its supervised warm-up; no reflection, no RL."),
    "rl_only": Variant("RL only", "Policy trained by online RL from the base model; no warm-up, no reflection."),
    "sft_rl": Variant("SFT + RL", "Policy warmed up and then trained by online RL; no reflection."),
    "reflect_rl": Variant("Reflect-RL", "Frozen reflector; policy warmed up and then trained by online RL."),
    "reflect_rl_no_negatives": Variant("w/o negatives", "Reflect-RL whose warm-up data hold no negative examples."),
    "reflect_rl_no_curriculum": Variant("w/o curriculum", "Reflect-RL trained on the full task from the start."),
    "prompted": Variant("Prompted", "A larger language model, prompted and not fine-tuned."),
    "prompted_few_shot": Variant("Prompted, few-shot", "The same, with worked examples."),
    "prompted_reflection": Variant("Prompted, reflecting", "The same, with a thought of its own before it acts."),
    "prompted_few_shot_reflection": Variant(
        "Prompted, few-shot, reflecting", "The same, with a thought and with worked examples of both."
    ),
}


@dataclass(frozen=True)
class Reported:
    """A success rate (0 to 1) that the paper reports, and the horizon it stands beside (None: any)."""

    env: str
    setting: str
    variant: str
    rate: float
    model: str = MODEL
    horizon: int | None = None


#: From `REPORTED_SOURCE`. Test sizes: 44 questions, 100 random taxi maps, 100 ALFWorld runs. The taxi's
#: evaluation horizon is not known; its numbers stand beside the horizon at which every start is solvable.
REPORTED = (
    Reported("autoexplore", "depth1", "sft_only", 0.04),
    Reported("autoexplore", "depth1", "rl_only", 0.12),
    Reported("autoexplore", "depth1", "sft_rl", 0.20),
    Reported("autoexplore", "depth2", "sft_rl", 0.04),
    Reported("autoexplore", "depth1", "reflect_rl", 0.36),
    Reported("autoexplore", "depth2", "reflect_rl", 0.17),
    Reported("autoexplore", "depth1", "reflect_rl_no_negatives", 0.33),
    Reported("autoexplore", "depth2", "reflect_rl_no_negatives", 0.12),
    Reported("autoexplore", "depth1", "prompted", 0.34, model="Mistral 7B"),
    Reported("taxi", "full", "sft_rl", 0.00, horizon=20),
    Reported("taxi", "full", "reflect_rl", 0.58, horizon=20),
    Reported("alfworld", "paper", "sft_rl", 0.66),
    Reported("alfworld", "paper", "reflect_rl", 0.74),
    Reported("alfworld", "paper", "prompted", 0.84, model="GPT-4"),
)


def reported(env: str, setting: str, variant: str, horizon: int | None = None) -> float | None:
    """The paper's success rate (0 to 1) or None where none is known (at this horizon, if one is given)."""
    for number in REPORTED:
        if (number.env, number.setting, number.variant) == (env, setting, variant):
            return number.rate if None in (horizon, number.horizon) or horizon == number.horizon else None
    return None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper; `better` and `worse` name the variants it compares, where it compares two."""

    number: int
    sentence: str
    better: str | None = None
    worse: str | None = None


CLAIMS = (
    Claim(1, "Reflect-RL beats supervised fine-tuning alone.", "reflect_rl", "sft_only"),
    Claim(2, "Reflect-RL beats RL fine-tuning alone, without a warm-up.", "reflect_rl", "rl_only"),
    Claim(3, "Reflect-RL beats warm-up and RL without reflection.", "reflect_rl", "sft_rl"),
    Claim(4, "Negative examples in the warm-up help.", "reflect_rl", "reflect_rl_no_negatives"),
    Claim(5, "Curriculum learning helps.", "reflect_rl", "reflect_rl_no_curriculum"),
    Claim(6, "A small model trained this way beats a much larger prompted one.", "reflect_rl", "prompted"),
    Claim(7, "Single-prompt action enumeration costs less than action-prompt normalisation and loses nothing."),
)


def verdict(low: float, high: float) -> str:
    """Judge a claim by the interval of its effect; one that holds 0 or is unknown (NaN) decides nothing."""
    if low > 0:
        return "reproduced"
    if high < 0:
        return "not reproduced"
    return "inconclusive"
