"""What depends on what: every notebook of a profile, for each environment, regime, variant and seed.

A rule's only declared output is the executed notebook: Snakemake deletes declared outputs before it runs a job
again, and checkpoints must outlive that, since training resumes from them. Its parameter `identity` names the
settings and the code that decide what the notebook makes, so that Snakemake executes again what an edit concerns and
nothing else. `python -m reflect_rl reproduce` runs this file on one machine; for another call
`snakemake --config profile=NAME --rerun-triggers mtime params` with its executor.
"""

import json
import os
import re
import shlex
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

from reflect_rl.core import paths
from reflect_rl.core.identity import code_hash, stage_key
from reflect_rl.core.profiles import extends
from reflect_rl.core.variants import VARIANTS, warmup_of
from reflect_rl.envs import settings

profile = settings.profile(config.get("profile", "laptop"))
asked = config.get("env") or ""
chosen = settings.chosen(profile, asked)
runs = f"runs/{profile.name}"
notebooks = Path(workflow.basedir) / "notebooks"
shown_by = [f"reflect_rl.report.{path.stem}" for path in (paths.PACKAGE / "report").glob("[a-z]*.py")]

# A place is an environment, or a named regime of one: `taxi`, `taxi/paper`.
places = {f"{env}/{regime}".rstrip("/"): (env, regime) for env in profile.envs for regime in profile.regimes_of(env)}
place_of = {run: place for place, run in places.items()}

data = f"{runs}/{{place}}/data/seed{{seed}}/01_data_generation.ipynb"
warmup = f"{runs}/{{place}}/{{variant}}/seed{{seed}}/02_sft_warmup.ipynb"
rl = f"{runs}/{{place}}/{{variant}}/seed{{seed}}/03_online_rl.ipynb"
prompted = f"{runs}/{{place}}/{{variant}}/seed{{seed}}/07_prompted_models.ipynb"
tuning = f"{runs}/tuning/{{place}}/{{variant}}/seed{{seed}}/{{slug}}/notebook.ipynb"

# Jobs run side by side, so the libraries below torch take one thread each (torch's own are lm.arithmetic's). And glibc
# keeps the memory of freed tensors instead of handing it back at every layer, which saves a job about 7% of its time.
for variable, value in {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
    "PYTHONUNBUFFERED": "1",  # a log is complete also where its job is killed
}.items():
    os.environ.setdefault(variable, value)

execute = "{sys.executable:q} -m reflect_rl execute {notebooks:q}/"
given = " {output:q} {params.given}"
to_log = " > {log:q} 2>&1"


wildcard_constraints:
    env="|".join(profile.envs),
    place="|".join(map(re.escape, places)),
    variant="|".join(VARIANTS),
    seed=r"\d+",
    slug=r"[^/]+",


localrules:
    all,
    tune,


load = cache(settings.load)  # code does not change while this is read
key = cache(lambda run, stage: stage_key(load(*run), stage))


def cells_hash(notebook):
    """A hash of a notebook's code cells: what an executed copy depends on beside settings and library."""
    cells = json.loads(notebook.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return sha256(json.dumps(sources).encode()).hexdigest()[:10]


def stages(place, variant, seed, *names, overrides=""):
    """The settings and code of some stages of a run."""
    env, regime = places[place]
    return " ".join(key((profile.name, env, variant, int(seed), overrides, regime), name) for name in names)


def made_in_warmup(group):
    """The stages that the warm-up of a variant makes."""
    return ("reflector", "policy", "reflections") if VARIANTS[group].reflection else ("policy",)


def of_warmup(wildcards, overrides=""):
    """Those of a warm-up, and of the evaluation of the variants that are nothing but this warm-up."""
    place, group, seed = wildcards.place, wildcards.variant, wildcards.seed
    alone = [v for v in profile.variants_of(*places[place]) if warmup_of(v) == group and not VARIANTS[v].rl]
    keys = [stages(place, group, seed, *made_in_warmup(group), overrides=overrides)]
    return " ".join(keys + [stages(place, variant, seed, "evaluation", overrides=overrides) for variant in alone])


def of_report(wildcards):
    """Those of all runs of an environment with the names of its regimes, and the code that collects and shows them."""
    env = wildcards.env
    keys = [stages(place_of[env, regime], *run, "evaluation") for regime, *run in profile.runs_of(env)]
    return " ".join([code_hash(shown_by)[:10], *profile.regimes_of(env), *keys])


def arguments(place, **named):
    """The parameters of a notebook, as arguments of `execute`."""
    env, regime = places[place]
    named = {"profile": profile.name, "env": env, "regime": regime} | named
    return shlex.join(word for name, value in named.items() if value != "" for word in ("-p", name, str(value)))


def of_wildcards(wildcards):
    """Those of a run, all of which its notebook's path names."""
    return arguments(**{name: value for name, value in wildcards.items() if name != "slug"})


def start_of(wildcards):
    """What a variant's RL starts from: its warm-up, or the data (for the tokenizer) where it has none."""
    group = warmup_of(wildcards.variant)
    template = data if group is None else warmup
    return template.format(place=wildcards.place, seed=wildcards.seed, variant=group)


@cache
def makers(env):
    """The first notebook that is run and makes a stage which several regimes of an environment share, by the stage's key."""
    found = {}
    for regime, variant, seed in profile.runs_of(env):
        if (regime, variant, seed) in held(env):
            continue
        place, group = place_of[env, regime], warmup_of(variant)
        found.setdefault(stages(place, "reflect_rl", seed, "data"), data.format(place=place, seed=seed))
        for stage in made_in_warmup(group) if group else ():
            made = warmup.format(place=place, variant=group, seed=seed)
            found.setdefault(stages(place, group, seed, stage), made)
    return found


def made_elsewhere(wildcards):
    """Those of other regimes that make the data, or a stage of a warm-up, of this one."""
    env, group = places[wildcards.place][0], wildcards.get("variant")
    own = (warmup if group else data).format(**wildcards)
    names = ("data",) if group is None else made_in_warmup(group)
    keys = [stages(wildcards.place, group or "reflect_rl", wildcards.seed, name) for name in names]
    return sorted({makers(env).get(key, own) for key in keys} - {own})


@cache
def held(env):
    """The runs of an environment that are not to be made again."""
    if not extends():
        return {}
    from reflect_rl.report import results  # here: it takes seconds (torch)

    return results.held(profile, env)


def all_runs(wildcards):
    """The warm-ups, RL runs and prompted evaluations of an environment."""
    found = []
    for regime, variant, seed in profile.runs_of(wildcards.env):
        if (regime, variant, seed) in held(wildcards.env):
            continue
        arm, at = VARIANTS[variant], {"place": place_of[wildcards.env, regime], "seed": seed}
        found += [warmup.format(**at, variant=arm.warmup)] if arm.warmup else []
        found += [rl.format(**at, variant=variant)] if arm.rl else []
        found += [prompted.format(**at, variant=variant)] if arm.prompted else []
    return list(dict.fromkeys(found))


def first_place(env):
    """An environment's first regime, which its report shows."""
    return place_of[env, profile.regimes_of(env)[0]]


def first_run(env):
    """The run that an environment's quickstart shows."""
    return {"place": first_place(env), "variant": "reflect_rl", "seed": profile.seeds_of("reflect_rl", env)[0]}


@cache
def tuning_jobs():
    """The overrides of each tuning run by its notebook; not read for the other targets."""
    return {
        tuning.format(place=place_of[env, regime], variant=variant, seed=seed, slug=slug): overrides
        for env, regime, variant, seed, overrides, slug in settings.tuning(profile.name, asked)
    }


def tuned_notebook(wildcards):
    return "03_online_rl" if VARIANTS[wildcards.variant].rl else "02_sft_warmup"


def of_tuning(wildcards):
    overrides = tuning_jobs()[tuning.format(**wildcards)]
    if VARIANTS[wildcards.variant].rl:
        return stages(wildcards.place, wildcards.variant, wildcards.seed, "rl", "evaluation", overrides=overrides)
    return of_warmup(wildcards, overrides)


rule all:
    input:
        expand(
            f"{runs}/{{env}}/{{notebook}}.ipynb",
            env=chosen,
            notebook=["05_curriculum_ablations", "06_baseline_comparison", *([] if extends() else ["00_quickstart"])],
        ),


# Priorities: first what others wait for, then the longest jobs, so that the cores finish together.


rule data_generation:
    input:
        ancient(made_elsewhere),
    output:
        data,
    log:
        f"{runs}/{{place}}/data/seed{{seed}}/01_data_generation.log",
    message:
        "{wildcards.place} seed {wildcards.seed}: data"
    params:
        given=of_wildcards,
        identity=lambda wildcards: stages(wildcards.place, "reflect_rl", wildcards.seed, "data"),
        cells=cells_hash(notebooks / "01_data_generation.ipynb"),
    threads: 1
    priority: 5
    shell:
        execute + "01_data_generation.ipynb" + given + to_log


rule sft_warmup:
    input:
        data,
        ancient(made_elsewhere),
    output:
        warmup,
    log:
        f"{runs}/{{place}}/{{variant}}/seed{{seed}}/02_sft_warmup.log",
    message:
        "{wildcards.place} {wildcards.variant} seed {wildcards.seed}: warm-up"
    params:
        given=of_wildcards,
        identity=of_warmup,
        cells=cells_hash(notebooks / "02_sft_warmup.ipynb"),
    threads: 1
    priority: lambda wildcards: 4 if VARIANTS[wildcards.variant].reflection else 3
    shell:
        execute + "02_sft_warmup.ipynb" + given + to_log


rule online_rl:
    input:
        start_of,
    output:
        rl,
    log:
        f"{runs}/{{place}}/{{variant}}/seed{{seed}}/03_online_rl.log",
    message:
        "{wildcards.place} {wildcards.variant} seed {wildcards.seed}: online RL"
    params:
        given=of_wildcards,
        identity=lambda wildcards: stages(wildcards.place, wildcards.variant, wildcards.seed, "rl", "evaluation"),
        cells=cells_hash(notebooks / "03_online_rl.ipynb"),
    threads: 1
    priority: lambda wildcards: 2 if VARIANTS[wildcards.variant].reflection else 1
    shell:
        execute + "03_online_rl.ipynb" + given + to_log


rule prompted_models:
    output:
        prompted,
    log:
        f"{runs}/{{place}}/{{variant}}/seed{{seed}}/07_prompted_models.log",
    message:
        "{wildcards.place} {wildcards.variant}"
    params:
        given=of_wildcards,
        identity=lambda wildcards: stages(wildcards.place, wildcards.variant, wildcards.seed, "evaluation"),
        cells=cells_hash(notebooks / "07_prompted_models.ipynb"),
    threads: 1
    priority: 3
    shell:
        execute + "07_prompted_models.ipynb" + given + " -p collect true" + to_log


rule quickstart:
    input:
        lambda wildcards: rl.format(**first_run(wildcards.env)),
    output:
        f"{runs}/{{env}}/00_quickstart.ipynb",
    log:
        f"{runs}/{{env}}/00_quickstart.log",
    message:
        "{wildcards.env}: quickstart"
    params:
        given=lambda wildcards: arguments(**first_run(wildcards.env)),
        identity=lambda wildcards: stages(*first_run(wildcards.env).values(), "rl"),
        cells=cells_hash(notebooks / "00_quickstart.ipynb"),
    threads: 1
    shell:
        execute + "00_quickstart.ipynb" + given + to_log


rule curriculum_ablations:
    input:
        all_runs,
    output:
        f"{runs}/{{env}}/05_curriculum_ablations.ipynb",
    log:
        f"{runs}/{{env}}/05_curriculum_ablations.log",
    message:
        "{wildcards.env}: ablations"
    params:
        given=lambda wildcards: arguments(first_place(wildcards.env), collect="true"),
        identity=of_report,
        cells=cells_hash(notebooks / "05_curriculum_ablations.ipynb"),
    threads: 1
    resources:
        results=1,  # environments share the results folder: one at a time
    shell:
        execute + "05_curriculum_ablations.ipynb" + given + to_log


rule baseline_comparison:
    input:
        all_runs,
        f"{runs}/{{env}}/05_curriculum_ablations.ipynb",  # both collect the results: one after the other
    output:
        f"{runs}/{{env}}/06_baseline_comparison.ipynb",
    log:
        f"{runs}/{{env}}/06_baseline_comparison.log",
    message:
        "{wildcards.env}: comparison"
    params:
        given=lambda wildcards: arguments(first_place(wildcards.env), collect="true"),
        identity=of_report,
        cells=cells_hash(notebooks / "06_baseline_comparison.ipynb"),
    threads: 1
    resources:
        results=1,
    shell:
        execute + "06_baseline_comparison.ipynb" + given + to_log


rule tuning_run:
    input:
        start_of,  # so that no two jobs make the same data or warm-up at the same time
    output:
        tuning,
    log:
        f"{runs}/tuning/{{place}}/{{variant}}/seed{{seed}}/{{slug}}/notebook.log",
    message:
        "{wildcards.place} {wildcards.variant} seed {wildcards.seed} {wildcards.slug}"
    params:
        given=of_wildcards,
        identity=of_tuning,
        cells=lambda wildcards: cells_hash(notebooks / f"{tuned_notebook(wildcards)}.ipynb"),
        notebook=tuned_notebook,
        overrides=lambda wildcards: tuning_jobs()[tuning.format(**wildcards)],
    threads: 1
    shell:
        execute + "{params.notebook}.ipynb" + given + " -p overrides {params.overrides:q}" + to_log


rule tune:
    input:
        lambda wildcards: list(tuning_jobs()),
