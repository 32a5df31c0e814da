"""The variants of the method that are compared."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Variant:
    """What distinguishes an arm of the comparison."""

    label: str  #: in tables and figures
    description: str
    warmup: str | None = None  #: the variant whose warmed-up players it starts from; None where there is no warm-up
    reflection: bool = False  #: whether the policy reads reflections
    negatives: bool = True  #: whether negative examples enter the SFT sets
    rl: bool = False  #: whether the policy is trained online
    milestones: bool = True  #: whether RL rewards the environment's milestones
    stages: bool = False  #: whether RL begins with the environment's easier stages
    scores_texts: bool = False  #: whether the policy scores the text of each action, and names no label
    trains_reflector: bool = False  #: whether RL trains the reflector, too
    prompted: bool = False  #: whether it is a language model that is prompted and not trained
    few_shot: bool = False  #: the same with worked examples
    scripted: bool = False  #: whether it is a rule of the environment's own, such as a search, that learns nothing

    def deciding(self) -> dict:
        """All that decides numbers, as plain JSON."""
        return {name: value for name, value in asdict(self).items() if name not in ("label", "description", "scripted")}


# fmt: off
VARIANTS = {
    "random": Variant("Random", "Picks uniformly among the legal actions."),
    "oracle": Variant("Oracle", "Takes an optimal action at every step.", scripted=True),
    "expert": Variant("Explorer", "The rules that the teacher goes by, which know what they have seen.", scripted=True),
    "blind_search": Variant("Blind search", "Looks everywhere in order; knows the answer when it reads it.", scripted=True),
    "name_search": Variant("Search by names", "The same, first where a name shares a word with the question, then in files "
                           "of the kind that is asked for.", scripted=True),
    "bm25_paths": Variant("BM25, paths", "Takes the file whose path BM25 ranks first of the whole repository.",
                          scripted=True),
    "bm25_texts": Variant("BM25, texts", "The same by what is shown of each file, which no player sees at once.",
                          scripted=True),
    "embeddings": Variant("Embeddings", "The same by all-MiniLM-L6-v2's embeddings of what is shown.", scripted=True),
    "follow": Variant("Follow", "Follows the reflection's advice at every step; no policy is trained.",
                      warmup="reflect_rl", reflection=True),
    "sft_only": Variant("SFT only", "Policy after its supervised warm-up; no reflection, no RL.", warmup="sft_only"),
    "rl_only": Variant("RL only", "Policy trained by online RL from the base model; no warm-up, no reflection.",
                       rl=True),
    "sft_rl": Variant("SFT + RL", "Policy warmed up and then trained by online RL; no reflection.",
                      warmup="sft_only", rl=True),
    "reflect_sft": Variant("Reflect-RL before RL", "Frozen reflector; policy after its supervised warm-up, no RL.",
                           warmup="reflect_rl", reflection=True),
    "reflect_rl": Variant("Reflect-RL", "Frozen reflector; policy warmed up and then trained by online RL.",
                          warmup="reflect_rl", reflection=True, rl=True),
    "reflect_rl_no_negatives": Variant("w/o negatives", "Reflect-RL whose warm-up data hold no negative examples.",
                                       warmup="reflect_rl_no_negatives", reflection=True, negatives=False, rl=True),
    "reflect_rl_no_milestones": Variant("w/o milestones", "Reflect-RL that is rewarded at the end of the task alone.",
                                        warmup="reflect_rl", reflection=True, rl=True, milestones=False),
    "reflect_rl_stages": Variant("with stages", "Reflect-RL that begins with the environment's easier stages.",
                                 warmup="reflect_rl", reflection=True, rl=True, stages=True),
    "reflect_sft_texts": Variant("texts before RL", "Frozen reflector; policy after its supervised warm-up on the "
                                 "texts of actions, no RL.", warmup="reflect_rl", reflection=True, scores_texts=True),
    "reflect_rl_texts": Variant("texts for labels", "Reflect-RL that scores the text of every action after a prompt of its own "
                                "(action-prompt normalisation).", warmup="reflect_rl", reflection=True, rl=True,
                                scores_texts=True),
    "reflect_rl_both": Variant("both online", "Reflect-RL whose reflector goes on learning from the rewards, too.",
                               warmup="reflect_rl", reflection=True, rl=True,
                               trains_reflector=True),
    "prompted": Variant("Prompted", "A larger language model, prompted and not fine-tuned.", prompted=True),
    "prompted_few_shot": Variant("Prompted, few-shot", "The same, with worked examples.", prompted=True, few_shot=True),
    "prompted_reflection": Variant("Prompted, reflecting", "The same, with a thought of its own before it acts.",
                                   prompted=True, reflection=True),
    "prompted_few_shot_reflection": Variant("Prompted, few-shot, reflecting",
                                            "The same, with a thought and with worked examples of both.",
                                            prompted=True, reflection=True, few_shot=True),
}
# fmt: on

REFERENCES = tuple(name for name, variant in VARIANTS.items() if variant.scripted and name not in ("oracle", "expert"))


def warmup_of(variant: str) -> str | None:
    """The variant whose warm-up a variant starts from, None where it has none."""
    return VARIANTS[variant].warmup
