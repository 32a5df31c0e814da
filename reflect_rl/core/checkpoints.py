"""The newest state of a training run, and an optimizer's state as tensors."""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import write_json, writing


class Checkpoints:
    """The newest state of a run, in `<folder>/step<N>/`, which appears when it is whole; then the one before goes."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, step: int, tensors: dict[str, dict[str, torch.Tensor]], state: dict) -> None:
        """Save groups of tensors (one file each) and a JSON-serialisable state."""
        target, temporary = self.folder / f"step{step}", self.folder / f".step{step}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        with writing(target, SafetensorError):
            temporary.mkdir(parents=True)
            for name, group in tensors.items():
                save_file({key: value.contiguous() for key, value in group.items()}, temporary / f"{name}.safetensors")
            write_json(temporary / "state.json", {"tensors": sorted(tensors), "state": state})
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
        for path in {*self.folder.glob("step*")} - {target}:
            shutil.rmtree(path, ignore_errors=True)

    def load(self) -> tuple[dict[str, dict[str, torch.Tensor]], dict] | None:
        """The newest checkpoint as it was saved, None where there is none; raises ReflectRLError on a damaged one."""
        path = max(self.folder.glob("step[0-9]*"), key=lambda path: int(path.name[4:]), default=None)
        if path is None:
            return None
        try:
            saved = json.loads((path / "state.json").read_text())
            tensors = {name: load_file(path / f"{name}.safetensors") for name in saved["tensors"]}
            return tensors, saved["state"]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise ReflectRLError(f"{path} is damaged ({error}); delete {self.folder} to train anew") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's per-parameter state, flat: `{parameter index}.{name}` -> tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """The inverse of `optimizer_tensors`; learning rates are left to the caller."""
    state: dict[int, dict] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
