"""The real repositories: open-source packages as their cards, with questions on them, as `build` made them."""

import gzip
import json
import zlib
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from reflect_rl.core.errors import ReflectRLError
from reflect_rl.envs.autoexplore.questions import Asked
from reflect_rl.envs.autoexplore.repository import Repository

FILE = Path(__file__).with_name("repositories.json.gz")
SHA256 = "625cc91d202de47ccc0772359b54783ba3746bcd3e186c2e0549c9f5fd2c75ec"  # of the JSON in it


@dataclass(frozen=True)
class Source:
    """A source distribution as the package index has it, and what it is used for."""

    name: str
    version: str
    sha256: str
    licence: str
    split: str


SOURCES = (
    Source("agate", "1.9.1", "bc60880c2ee59636a2a80cd8603d63f995be64526abf3cbba12f00767bcd5b3d", "MIT", "train"),
    Source(
        "cookiecutter",
        "2.6.0",
        "db21f8169ea4f4fdc2408d48ca44859349de2647fbe494a9d6c3edfc0542c21c",
        "BSD-3-Clause",
        "train",
    ),
    Source("csvkit", "2.0.0", "311f21787615a91656897e217c62ab26c8446d67309b61bd013e345b35816fdf", "MIT", "train"),
    Source(
        "invoke", "2.2.0", "ee6cbb101af1a859c7fe84f2a264c059020b0cb7fe3535f9424300ab568f6bd5", "BSD-2-Clause", "train"
    ),
    Source("lark", "1.1.9", "15fa5236490824c2c4aba0e22d2d6d823575dcaf4cdd1848e34b6ad836240fba", "MIT", "train"),
    Source(
        "markdown", "3.6", "ed4f41f6daecbeeb96e576ce414c41d2d876daa9a16cb35fa8ed8c2ddfad0224", "BSD-3-Clause", "train"
    ),
    Source(
        "networkx", "3.3", "0c127d8b2f4865f59ae9cb8aafcd60b5c70f3241ebd66f7defad7c4ab90126c9", "BSD-3-Clause", "train"
    ),
    Source("petl", "1.7.15", "8e31438380ad51552539865ad3b1ab655de1b531bd03980c871ec2cff4a8c414", "MIT", "train"),
    Source("simpy", "4.1.1", "06d0750a7884b11e0e8e20ce0bc7c6d4ed5f1743d456695340d13fdff95001a6", "MIT", "train"),
    Source(
        "sqlparse", "0.5.0", "714d0a4932c059d16189f58ef5411ec2287a4360f17cdd0edd2d09d4c5087c93", "BSD-3-Clause", "train"
    ),
    # relatives of each other, so that none of the family is in training
    Source(
        "click",
        "8.1.7",
        "ca9853ad459e787e2192211578cc907e7594e294c7ccc834310722b41b9ca6de",
        "BSD-3-Clause",
        "validation",
    ),
    Source(
        "jinja2",
        "3.1.4",
        "4a3aee7acbbe7303aede8e9648d13b8bf88a429282aa6122a993f0ac800cb369",
        "BSD-3-Clause",
        "validation",
    ),
    Source(
        "flask", "3.0.3", "ceb27b0af3823ea2737928a4d99d125a06175b8512c445cbd9a9ce200ef76842", "BSD-3-Clause", "test"
    ),
    Source(
        "werkzeug", "3.0.3", "097e5bfda9f0aba8da6b8545146def481d06aa7d3266e7448e2cccf67dd8bd18", "BSD-3-Clause", "test"
    ),
)


@dataclass(frozen=True, eq=False)
class Package:
    """A repository of the corpus."""

    source: Source
    licence: str  #: its text
    repository: Repository  #: path -> card
    questions: tuple[Asked, ...]


@cache
def packages(file: Path = FILE, checksum: str = SHA256) -> dict[str, Package]:
    """The corpus by name.

    Raises:
        ReflectRLError: the file is missing, or is not the one that belongs to this code.
    """
    way_out = "restore it from the project, or make it anew: python -m reflect_rl.envs.autoexplore.build"
    try:
        content = gzip.decompress(file.read_bytes())
    except FileNotFoundError as error:
        raise ReflectRLError(f"{file} is missing; {way_out}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ReflectRLError(f"{file} is damaged ({error}); {way_out}") from error
    if sha256(content).hexdigest() != checksum:
        raise ReflectRLError(f"{file} is not the corpus of this code (its checksum differs); {way_out}")
    made = json.loads(content)
    return {
        source.name: Package(
            source,
            made[source.name]["licence"],
            Repository(source.name, made[source.name]["files"]),
            tuple(Asked(**asked) for asked in made[source.name]["questions"]),
        )
        for source in SOURCES
    }
