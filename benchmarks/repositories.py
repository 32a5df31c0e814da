"""The data card of AutoExplore's real repositories: what they are, how many questions each has, and examples.

    python benchmarks/repositories.py

Writes repositories.csv (one line a repository) and repositories_examples.csv with their .md beside this file.
"""

from collections import Counter
from pathlib import Path

import pandas as pd

from reflect_rl.core.files import write_csv, write_text
from reflect_rl.envs.autoexplore import corpus, real

HERE = Path(__file__).parent
LEAKS = ("stem", "part", "folder", "nothing")  # what of the file's path the words of a question give away
EXAMPLES = 20


def card() -> pd.DataFrame:
    """One line a repository: files, and questions by depth of the file, by leak and by split."""
    rows = []
    for name, package in corpus.packages().items():
        numbers = {f"{s}": 0 for s in real.SHARES}
        for setting in real.SETTINGS:
            for split in real.SHARES:
                numbers[split] += len(
                    {task.split("-")[2] for task in real.tasks(setting, split) if task.split("-")[1] == name}
                )
        depths, leaks = (
            Counter(of) for of in zip(*((a.path.count("/"), a.leak) for a in package.questions), strict=True)
        )
        setting = "known" if package.source.split == "train" else "new"
        rows.append(
            {"repository": f"{name} {package.source.version}", "licence": package.source.licence, "setting": setting}
            | {"files": len(package.repository.files), "questions": len(package.questions)}
            | {f"depth {depth}": depths[depth] for depth in range(4)}
            | {f"leak: {leak}": leaks[leak] for leak in LEAKS}
            | numbers
        )
    found = pd.DataFrame(rows)
    sums = found.select_dtypes("number").sum().to_dict()
    return pd.concat(
        [found, pd.DataFrame([{"repository": "all", "licence": "", "setting": ""} | sums])], ignore_index=True
    )


def examples() -> pd.DataFrame:
    """Every so many-th question of the corpus."""
    every = [(name, asked) for name, package in corpus.packages().items() for asked in package.questions]
    chosen = every[:: len(every) // EXAMPLES][:EXAMPLES]
    return pd.DataFrame([{"question": a.text, "file": f"{name}: {a.path}", "leak": a.leak} for name, a in chosen])


if __name__ == "__main__":
    for stem, table in (("repositories", card()), ("repositories_examples", examples())):
        write_csv(HERE / f"{stem}.csv", table)
        write_text(HERE / f"{stem}.md", table.to_markdown(index=False) + "\n")
        print(table.to_markdown(index=False))
