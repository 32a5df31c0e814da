"""What is changed in TextWorld, in engine processes alone and without a changed letter in its outputs.

`benchmarks/household_patches.py` measures what each change is worth on a whole run.
"""

import os
import subprocess
import tempfile
from copy import deepcopy
from functools import cache
from pathlib import Path

from reflect_rl.envs.household.games import package


@cache
def planner():
    """The interface of the planning library, which from now on loads it without its debugging symbols.

    Every game under way loads a copy of its own from a temporary file, and the symbols are 97% of 34 MB. The stripped
    library is made anew in each process and kept in memory, so none is loaded from a folder that others write to. Without
    `strip`, or on a system other than Linux, the library stays whole.
    """
    interface = package("fast_downward.interface")
    if hasattr(os, "memfd_create"):
        with tempfile.TemporaryDirectory() as folder:
            stripped = Path(folder) / "planner.so"
            try:
                subprocess.run(["strip", "-o", stripped, interface.DOWNWARD_LIB_PATH], check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                return interface
            library = os.memfd_create("planner")
            os.write(library, stripped.read_bytes())
        interface.DOWNWARD_LIB_PATH = f"/proc/self/fd/{library}"
    return interface


@cache
def quick_texts() -> None:
    """Spare TextWorld's text generation two thirds of its time.

    It parses the same few conditions at every text, and copies deeply what nobody changes.
    """
    textgen, logic = package("textworld.envs.pddl.textgen"), package("textworld.logic")

    class Rules(logic.Rule):
        parse_conjunctive_query = staticmethod(cache(logic.Rule.parse_conjunctive_query))

    textgen.Rule = Rules
    parsed = cache(textgen._parse_and_convert)
    textgen._parse_and_convert = lambda *text, **options: deepcopy(parsed(*text, **options))
    for value in (logic.Placeholder, logic.Variable, package("textworld.generator.game").EntityInfo):
        value.__deepcopy__ = lambda self, memo: self
