"""The page of a profile: what is on it, that it needs nothing beside it, and that it works in a real browser."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from small_results import SMALL, copy_small

from reflect_rl.core.files import read_csv
from reflect_rl.report import page, watch
from reflect_rl.report.claims import COLUMNS
from reflect_rl.report.raw import collected
from reflect_rl.report.rule import read_rule

JUDGED = "repositories"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of the profile with the fewest results, written into a project of its own."""
    folder = tmp_path_factory.mktemp("project")
    copy_small(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("REFLECT_RL_HOME", raising=False)
        path = page.write_page(SMALL)
        kept = watch.kept(SMALL, "taxi")
        yield path, path.read_text(), kept, collected(SMALL)


@pytest.fixture(scope="module")
def with_claims(tmp_path_factory):
    """The page of a profile that tests claims."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("REFLECT_RL_HOME", str(tmp_path_factory.mktemp("home")))
        return page.write_page(JUDGED).read_text()


def test_it_needs_nothing_beside_it(written):
    _, text, _, _ = written
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources and not [
        source
        for source in sources
        if not re.match(r"data:image/png;base64,|#|../../notebooks/|https://doi\.org/", source)
    ]
    anchors = {source[1:] for source in sources if source.startswith("#")}
    ids = re.findall(r'id="([^"]*)"', text)
    assert anchors <= {*ids} and anchors and len({*ids}) == len(ids)


def test_it_has_the_claims_figures_tables_protocol_and_hardware(written):
    _, text, _, known = written
    assert text.count("<figure>") >= 3 and text.count("<img") == text.count("alt=")
    assert "Test success, full" in text and "Protocol: profile" in text
    assert all(machine in text for machine in known["taxi"][1]["machines"])


def test_it_says_what_rl_and_reflections_add_where_that_was_compared(written, with_claims):
    table = re.search(r'<section id="added">(.*?)</section>', with_claims, re.S)[1]
    known = read_csv(ROOT / "results" / JUDGED / "tables/contributions.csv")
    assert all(f"<td>{words}</td>" in table for words in known["RL adds"])
    assert 'id="added"' not in written[1]


def test_claims_that_no_comparison_tests_are_one_sentence(with_claims):
    (untested,) = re.findall(r"No comparison tests: (.*?)</p>", html.unescape(with_claims))
    claims = read_rule().claims
    assert [name for name, sentence in claims.items() if sentence in untested] == [*"24567"]
    assert with_claims.count('<article class="claim"') == len(claims) - 5


def test_the_player_has_the_kept_episodes(written):
    _, text, kept, _ = written
    stored = re.search(r'<script type="application/json" id="episodes">(.*?)</script>', text, re.S)[1]
    assert "<" not in stored
    found = json.loads(stored)
    (of,) = found["of"].values()
    assert [e["variant"] for e in of["episodes"]] == [e["variant"] for e in kept]
    frames = of["episodes"][0]["frames"]
    assert [f["action"] for f in frames] == [f["action"] for f in kept[0]["frames"]]
    assert {f["scene"] for f in frames} <= set(found["scenes"])
    assert len(found["scenes"]) == len({f["observation"] for e in kept for f in e["frames"]})


ERRORS = '<script>window.told = []; addEventListener("error", e => told.push(String(e.message)));</script>'
TRY = """<script>
addEventListener("load", () => setTimeout(() => {
  const pictures = [...document.images];
  pictures.forEach(picture => picture.loading = "eager");
  const player = document.querySelector(".player"), first = player.querySelector(".side img").src;
  player.querySelector(".on").click();
  setTimeout(() => parent.postMessage(JSON.stringify({
    steps: player.querySelector(".at").textContent, moved: player.querySelector(".side img").src !== first,
    pictures: pictures.length, broken: pictures.filter(each => !each.complete || !each.naturalWidth).length,
    claims: document.querySelectorAll(".claim .row").length,
    wide: document.documentElement.scrollWidth, inner: innerWidth, errors: told}), "*"), 500);
}, 500));
</script>"""
AROUND = """<!doctype html><body><iframe src="page.html" width="{width}" height="2000" style="border:0"></iframe><p id="told"></p>
<script>addEventListener("message", e => document.getElementById("told").textContent = e.data);</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser: apt-get install chromium")
@pytest.mark.parametrize("profile", [SMALL, JUDGED])
@pytest.mark.parametrize("width", [390, 1200])
def test_in_a_browser_it_steps_and_fits_and_says_no_error(written, with_claims, tmp_path, width, profile):
    text = written[1] if profile == SMALL else with_claims
    (tmp_path / "page.html").write_text(
        text.replace("<head>", f"<head>{ERRORS}", 1).replace("</body>", f"{TRY}</body>")
    )
    (tmp_path / "around.html").write_text(AROUND.format(width=width))
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=10000",
        "--window-size=1300,2100",
    ]
    command = ["chromium", *options, f"--user-data-dir={tmp_path / 'user'}", "--dump-dom"]
    dumped = subprocess.run(
        [*command, (tmp_path / "around.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    told = json.loads(re.search(r'<p id="told">(.*?)</p>', dumped.stdout)[1])
    assert told["errors"] == [] and told["moved"] and told["steps"].startswith("step 1 of ")
    assert told["broken"] == 0 and told["pictures"] >= text.count("<figure>") >= 3
    assert told["claims"] == len(read_csv(ROOT / "results" / profile / "claims.csv", COLUMNS))
    assert told["inner"] == width >= told["wide"]
