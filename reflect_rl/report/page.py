"""`results/<profile>/report.html`: what a profile found on one page that needs nothing beside it."""

import base64
import io
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from reflect_rl.core import paths
from reflect_rl.core.files import read_csv, write_text
from reflect_rl.core.profiles import Profile
from reflect_rl.core.variants import VARIANTS
from reflect_rl.envs import settings
from reflect_rl.envs.base import EnvSpec
from reflect_rl.envs.registry import get
from reflect_rl.report import watch
from reflect_rl.report.claims import COLUMNS, elsewhere, in_points
from reflect_rl.report.film import CARDS
from reflect_rl.report.forest import CAPTION as OF_CLAIMS
from reflect_rl.report.maps import CAPTIONS as OF_MAPS
from reflect_rl.report.protocol import made_on, protocol
from reflect_rl.report.raw import collected
from reflect_rl.report.rule import read_rule, shown_alone
from reflect_rl.report.style import image
from reflect_rl.report.tables import shown, versus

PAGE = Path(__file__).with_suffix(".html")
CAPTIONS = {
    "main_results": "Success by variant, with 95% intervals over seeds and tasks. Look at the step from Reflect-RL before RL to "
    "Reflect-RL, which is what RL adds, and at that from SFT + RL, which is what reflections add; then at how far the dot "
    "(sampled) lies from the square (greedy): sharpening could close that gap.",
    "training_curves": "Validation success, the policy's entropy and the length of episodes over environment steps of RL: "
    "means over seeds and their 95% intervals. Look at where entropy has fallen before success rose: such an arm no longer "
    "explores, and keeps what it does.",
    "reflector": "How often the reflector judges the last action as the teacher does, and names a best next one, by situation; "
    "where some action loses the game at once, also how often it advises one. Look at its advice after a mistake: there a "
    "policy that obeys it goes wrong with it.",
    "ablations": "What the success of Reflect-RL loses or gains without one of its parts. Look at which intervals cross 0: these "
    "parts have not been shown to matter.",
}
FIRST = ("sft_rl", "reflect_sft", "reflect_rl")  # the variants whose episodes are side by side when the page opens
COLOURS, SCENE = 64, 110  # of an embedded picture; dots an inch of a scene


def write_page(profile_name: str) -> Path:
    """Write the page of a profile from the tables, figures and episodes that lie in its folders; returns its path."""
    profile, path = settings.profile(profile_name), paths.results(profile_name) / "report.html"
    envs = [env for env in profile.envs if env in collected(profile_name)]
    own = [(env, regime) for env in envs for regime in shown_alone(profile, env)]
    kept = {key: watch.kept(profile_name, profile.stem(*key)) for key in own}
    scenes: dict[str, str] = {}
    of = {_anchor(*key): _watched(get(key[0]), episodes, scenes) for key, episodes in kept.items() if episodes}
    page = Environment(autoescape=True, trim_blocks=True).from_string(PAGE.read_text())
    known = {"first": FIRST, "of": of, "scenes": scenes}
    claims = _claims(profile_name, envs, own)
    tested = [claim for claim in claims if claim["rows"]]
    glances = {name: paths.result_file(profile_name, f"tables/{name}.csv") for name in ("contributions", "contrasts")}
    ours = [_place(env, regime) for env in envs for regime in profile.regimes_of(env)]
    judged = {row["place"] for claim in tested for row in claim["rows"]}
    others = sorted(judged.difference(ours))
    text = page.render(
        profile=profile_name,
        claims=tested,
        untested=[claim["name"] for claim in claims if not claim["rows"]],
        forest=_pictures(profile_name, {"claims": OF_CLAIMS}),
        **{name: _table(path) for name, path in glances.items() if path},
        places=[*filter(judged.__contains__, ours), *others],
        others=others,
        envs=[_env(profile, env, {key: episodes for key, episodes in kept.items() if key[0] == env}) for env in envs],
        made=[f"{get(env).label}: {made_on(profile_name, env)}" for env in envs],
        episodes=Markup(json.dumps(known).replace("<", "\\u003c")) if of else "",
    )
    write_text(path, text)
    return path


def _place(env: str, regime: str) -> str:
    return ", ".join(filter(None, (get(env).label, regime)))


def _anchor(env: str, regime: str) -> str:
    return re.sub(r"[^\w-]", "-", f"{env}-{regime}").strip("-")


def _claims(profile_name: str, envs: Sequence[str], own: Collection[tuple[str, str]]) -> list[dict]:
    """Each claim of the paper, with the comparisons that test it, here or else in other profiles; `own`: the places that have a
    part of the page."""
    path = paths.result_file(profile_name, "claims.csv")
    table, found = read_csv(path, COLUMNS) if path else pd.DataFrame(columns=COLUMNS), []
    if table.empty:
        return []
    table = pd.concat([table.astype({"claim": str}), elsewhere(profile_name, envs, table)]).astype(object).fillna("")
    for number, sentence in read_rule().claims.items():
        rows = []
        for row in table[table["claim"] == number].to_dict("records"):
            numbers = [row[name] for name in ("effect", "ci_low", "ci_high")]
            place, other = (row["env"], row["regime"]), row.get("profile", "")
            rows.append(
                {
                    **{name: row[name] for name in ("verdict", "note")},
                    "place": _place(*place) + f" (profile {other})" * bool(other),
                    "anchor": "" if other else _anchor(*place) if place in own else f"env-{row['env']}",
                    "comparison": versus(row["comparison"]),
                    "effect": in_points(*numbers) if "" not in numbers else "",
                    "panel": f"{row['setting']}, {row['n_seeds']} seed{'s' * (row['n_seeds'] != 1)}, {row['n_tasks']} tasks",
                }
            )
        found.append({"number": number, "name": f"{number}. {sentence}", "rows": rows})
    return found


def _env(profile: Profile, env: str, kept: dict[tuple[str, str], list[dict]]) -> dict:
    """What the page shows of an environment; `kept`: the episodes of each place of it that has a part of the page."""
    spec = get(env)
    return {
        "name": env,
        "label": spec.label,
        "goal": spec.goal,
        "maps": _pictures(profile.name, OF_MAPS, f"{env}_"),
        "regimes": [_regime(profile, spec, regime, episodes) for (_, regime), episodes in kept.items()],
    }


def _regime(profile: Profile, spec: EnvSpec, regime: str, episodes: list[dict]) -> dict:
    stem = profile.stem(spec.name, regime)
    titles = {setting: f"Test success, {setting}" for setting in spec.settings}
    titles = (
        {"headline": titles.pop(spec.headline)} | titles | {"verdicts": "Verdicts: difference in percentage points"}
    )
    tables = {title: paths.result_file(profile.name, f"tables/{stem}_{name}.csv") for name, title in titles.items()}
    return {
        "anchor": _anchor(spec.name, regime),
        "title": f"{spec.label}, regime {regime}" if regime else f"{spec.label}: results",
        "episodes": bool(episodes),
        "choices": any(frame.get("choices") for episode in episodes for frame in episode["frames"]),
        "tables": [{"title": title, "html": _table(path)} for title, path in tables.items() if path],
        "figures": _pictures(profile.name, CAPTIONS, f"{stem}_"),
        "protocol": protocol(profile.name, spec.name, regime),
    }


def _pictures(profile_name: str, captions: dict[str, str], prefix: str = "") -> list[dict[str, str]]:
    """The figures of a profile, or with a prefix of an environment or regime, as drawn here or else as committed."""
    files = {caption: paths.figure_file(profile_name, f"{prefix}{name}.png") for name, caption in captions.items()}
    return [{"src": _embedded(Image.open(file)), "caption": caption} for caption, file in files.items() if file]


def _table(path: Path) -> Markup:
    return Markup(shown(read_csv(path)).to_html(index=False, border=0))


def _embedded(picture: Image.Image) -> str:
    """A picture as an address that holds it, with few colours."""
    kept = io.BytesIO()
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(kept.getvalue()).decode()}"


def _watched(spec: EnvSpec, episodes: list[dict], scenes: dict[str, str]) -> dict:
    """Episodes as the page's player reads them; a scene is drawn once, under a number in `scenes`."""
    drawing, numbers, found = spec.load_draw() or CARDS, {}, []
    for episode in episodes:
        frames = []
        for frame in episode["frames"]:
            text = frame["observation"]
            if text not in numbers:
                numbers[text] = f"{spec.name} {len(scenes)}"
                figure = Figure(figsize=(drawing.width, drawing.width))
                drawing.draw(figure.add_axes((0.01, 0.01, 0.98, 0.98)), text)
                scenes[numbers[text]] = _embedded(Image.open(io.BytesIO(image(figure, dpi=SCENE))))
            frames.append(frame | {"scene": numbers[text]})
        found.append({name: episode[name] for name in ("variant", "task", "ended")} | {"frames": frames})
    return {
        "tasks": [*dict.fromkeys(episode["task"] for episode in episodes)],
        "labels": {name: VARIANTS[name].label for name in dict.fromkeys(e["variant"] for e in episodes)},
        "episodes": found,
    }
