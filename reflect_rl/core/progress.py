"""Progress bars."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm


def progress(items: Iterable, description: str, **options) -> Iterable:
    """A progress bar on standard error or in the notebook; `total`, `initial` and `unit` as in tqdm.

    `TQDM_DISABLE=1` turns it off. tqdm itself obeys that on terminals only; a bar in a notebook sends thousands of
    messages, which nobody reads who executes it with papermill or nbval.
    """
    disable = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return tqdm(items, desc=description, leave=False, disable=disable, **options)
