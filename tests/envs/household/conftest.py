import pytest

from reflect_rl.envs.household.engine import workers


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """One home for all tests of this folder: games are made and translated once."""
    yield tmp_path_factory.mktemp("household")
    for number in range(workers._worker.cache_info().currsize):
        workers.worker(number).close()
    workers._worker.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def home(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFLECT_RL_HOME", str(folder))
        patch.delenv("ALFWORLD_DATA", raising=False)
        yield folder
