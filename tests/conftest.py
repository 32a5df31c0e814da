"""What tests of several rooms share."""

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True, database=None, deadline=None)  # the same examples in every run
settings.load_profile("same")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Make a project whose only profile is `mine`, of the text that is given."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    return lambda text: (tmp_path / "configs" / "mine.yaml").write_text(text)
