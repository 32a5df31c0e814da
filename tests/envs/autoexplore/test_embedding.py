import numpy as np
import pytest
from transformers import BertConfig, BertModel, BertTokenizer

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.autoexplore import embedding
from reflect_rl.envs.autoexplore.references import REFERENCES
from reflect_rl.lm.arithmetic import seeded

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lost", "wigs", "ladders", "at", "norford"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A sentence encoder of the same kind with two small layers of fresh weights."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    with seeded(0):
        config = BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        )
        BertModel(config).save_pretrained(folder)
    return folder


def test_a_text_has_the_same_vector_alone_and_beside_longer_ones(model):
    texts = ["wigs", "ladders lost at norford", "wigs lost", ""] * 20  # more than go at a time
    together = embedding.embed(texts, model)
    assert together.shape == (80, 16)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together[2], embedding.embed(["wigs lost"], model)[0], atol=1e-5)
    np.testing.assert_allclose(together[:4], together[76:], atol=1e-5)
    assert together[0] @ together[1] < 0.9999  # and others differ


def test_without_the_weights_it_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr(embedding, "PACKAGE", "no_such_package")
    with pytest.raises(ReflectRLError, match=r"\[embeddings\]"):
        embedding.folder()


def test_with_the_weights_it_finds_by_meaning():
    pytest.importorskip(embedding.PACKAGE)
    texts = ["Rules for holidays", "How to repair a bicycle", "The price of bread"]
    fits = embedding.embed(texts) @ embedding.embed(["Where is it said how one mends a bike?"])[0]
    assert fits.argmax() == 1
    assert "embeddings" in REFERENCES
