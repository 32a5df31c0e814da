"""What depends on what: every notebook of a profile, for each environment, variant and seed.

A rule's only declared output is the executed notebook: Snakemake deletes declared outputs before it runs a job
again, and checkpoints must outlive that, since training resumes from them. `python -m reflect_rl reproduce`
runs this file on one machine; for another call `snakemake --config profile=NAME` with its executor.
"""

import os
import sys
from pathlib import Path

from reflect_rl import config as settings  # Snakemake has a `config` of its own

profile = settings.profile(config.get("profile", "laptop"))
asked = config.get("env") or ""
chosen = settings.chosen(profile, asked)
runs = f"runs/{profile.name}"
notebooks = Path(workflow.basedir) / "notebooks"
os.environ.setdefault("OMP_NUM_THREADS", "1")

data = f"{runs}/{{env}}/data/seed{{seed}}/01_data_generation.ipynb"
warmup = f"{runs}/{{env}}/{{group}}/seed{{seed}}/02_sft_warmup.ipynb"
rl = f"{runs}/{{env}}/{{variant}}/seed{{seed}}/03_online_rl.ipynb"
prompted = f"{runs}/{{env}}/{{variant}}/seed{{seed}}/06_prompted_models.ipynb"
tuning = f"{runs}/tuning/{{env}}/{{variant}}/seed{{seed}}/{{slug}}/notebook.ipynb"


wildcard_constraints:
    env="|".join(settings.ENVS),
    group="|".join(settings.VARIANTS),
    variant="|".join(settings.VARIANTS),
    seed=r"\d+",
    slug=r"[^/]+",


localrules:
    all,
    tune,


def start_of(wildcards):
    """What a variant's RL starts from: its warm-up, or the data (for the tokenizer) where it has none."""
    group = settings.warmup_of(wildcards.variant)
    template = data if group is None else warmup
    return template.format(env=wildcards.env, seed=wildcards.seed, group=group)


def all_runs(wildcards):
    """The warm-ups and RL runs of an environment."""
    variants = profile.variants_of(wildcards.env)
    groups = sorted({settings.warmup_of(variant) for variant in variants} - {None})
    trained = [variant for variant in variants if settings.VARIANTS[variant].rl]
    runs = expand(warmup, env=wildcards.env, group=groups, seed=profile.seeds)
    return runs + expand(rl, env=wildcards.env, variant=trained, seed=profile.seeds)


def prompted_runs(wildcards):
    """The evaluations of the prompted variants of an environment."""
    asked = [variant for variant in profile.variants_of(wildcards.env) if settings.VARIANTS[variant].prompted]
    return expand(prompted, env=wildcards.env, variant=asked, seed=profile.seeds[0])


def tuning_jobs():
    """The overrides of each tuning run by its notebook; not read for the other targets."""
    return {
        tuning.format(env=env, variant=variant, seed=seed, slug=slug): overrides
        for env, variant, seed, overrides, slug in settings.tuning(profile.name, asked)
    }


rule all:
    input:
        expand(
            f"{runs}/{{env}}/{{notebook}}.ipynb",
            env=chosen,
            notebook=["00_quickstart", "04_curriculum_ablations", "05_baseline_comparison"],
        ),


# Priorities: first what others wait for, then the longest jobs, so that the cores finish together.


rule data_generation:
    input:
        Path(workflow.basedir) / "configs" / f"{profile.name}.yaml",  # edited settings are noticed
    output:
        data,
    log:
        f"{runs}/{{env}}/data/seed{{seed}}/01_data_generation.log",
    params:
        notebook=notebooks / "01_data_generation.ipynb",
    threads: 1
    priority: 5
    shell:
        "{sys.executable:q} -m reflect_rl execute {params.notebook:q} {output:q} -p profile {profile.name:q}"
        " -p env {wildcards.env:q} -p seed {wildcards.seed:q} > {log:q} 2>&1"


rule sft_warmup:
    input:
        data,
    output:
        warmup,
    log:
        f"{runs}/{{env}}/{{group}}/seed{{seed}}/02_sft_warmup.log",
    params:
        notebook=notebooks / "02_sft_warmup.ipynb",
    threads: 1
    priority: lambda wildcards: 4 if settings.VARIANTS[wildcards.group].reflection else 3
    shell:
        "{sys.executable:q} -m reflect_rl execute {params.notebook:q} {output:q} -p profile {profile.name:q}"
        " -p env {wildcards.env:q} -p variant {wildcards.group:q} -p seed {wildcards.seed:q} > {log:q} 2>&1"


rule online_rl:
    input:
        start_of,
    output:
        rl,
    log:
        f"{runs}/{{env}}/{{variant}}/seed{{seed}}/03_online_rl.log",
    params:
        notebook=notebooks / "03_online_rl.ipynb",
    threads: 1
    priority: lambda wildcards: 2 if settings.VARIANTS[wildcards.variant].reflection else 1
    shell:
        "{sys.executable:q} -m reflect_rl execute {params.notebook:q} {output:q} -p profile {profile.name:q}"
        " -p env {wildcards.env:q} -p variant {wildcards.variant:q} -p seed {wildcards.seed:q} > {log:q} 2>&1"


rule prompted_models:
    output:
        prompted,
    log:
        f"{runs}/{{env}}/{{variant}}/seed{{seed}}/06_prompted_models.log",
    params:
        notebook=notebooks / "06_prompted_models.ipynb",
    threads: 1
    priority: 3
    shell:
        "{sys.executable:q} -m reflect_rl execute {params.notebook:q} {output:q} -p profile {profile.name:q}"
        " -p env {wildcards.env:q} -p variant {wildcards.variant:q} -p seed {wildcards.seed:q} > {log:q} 2>&1"


rule quickstart:
    input:
        f"{runs}/{{env}}/reflect_rl/seed{profile.seeds[0]}/03_online_rl.ipynb",
    output:
        f"{runs}/{{env}}/00_quickstart.ipynb",
    log:
        f"{runs}/{{env}}/00_quickstart.log",
    params:
        notebook=notebooks / "00_quickstart.ipynb",
        seed=profile.seeds[0],
    threads: 1
    shell:
        "{sys.executable:q} -m reflect_rl execute {params.notebook:q} {output:q} -p profile {profile.name:q}"
        " -p env {wildcards.env:q} -p variant reflect_rl -p seed {params.seed:q} > {log:q} 2>&1"


rule curriculum_ablations:
    input:
        all_runs,
        prompted_runs,
    output:
        f"{runs}/{{env}}/04_curriculum_ablations.ipynb",
    log:
        f"{runs}/{{env}}/04_curriculum_ablations.log",
    params:
        notebook=notebooks / "04_curriculum_ablations.ipynb",
    threads: 1
    resources:
        results=1,  # environments share the results folder: one at a time
    shell:
        "{sys.executable:q} -m reflect_rl execute {params.notebook:q} {output:q} -p profile {profile.name:q}"
        " -p env {wildcards.env:q} > {log:q} 2>&1"


rule baseline_comparison:
    input:
        all_runs,
        f"{runs}/{{env}}/04_curriculum_ablations.ipynb",  # both collect the results: one after the other
    output:
        f"{runs}/{{env}}/05_baseline_comparison.ipynb",
    log:
        f"{runs}/{{env}}/05_baseline_comparison.log",
    params:
        notebook=notebooks / "05_baseline_comparison.ipynb",
    threads: 1
    resources:
        results=1,
    shell:
        "{sys.executable:q} -m reflect_rl execute {params.notebook:q} {output:q} -p profile {profile.name:q}"
        " -p env {wildcards.env:q} > {log:q} 2>&1"


rule tuning_run:
    input:
        start_of,  # so that no two jobs make the same data or warm-up at the same time
    output:
        tuning,
    log:
        f"{runs}/tuning/{{env}}/{{variant}}/seed{{seed}}/{{slug}}/notebook.log",
    params:
        notebook=lambda wildcards: notebooks
        / ("03_online_rl.ipynb" if settings.VARIANTS[wildcards.variant].rl else "02_sft_warmup.ipynb"),
        overrides=lambda wildcards: tuning_jobs()[tuning.format(**wildcards)],
    threads: 1
    shell:
        "{sys.executable:q} -m reflect_rl execute {params.notebook:q} {output:q} -p profile {profile.name:q}"
        " -p env {wildcards.env:q} -p variant {wildcards.variant:q} -p seed {wildcards.seed:q}"
        " -p overrides {params.overrides:q} > {log:q} 2>&1"


rule tune:
    input:
        lambda wildcards: list(tuning_jobs()),
    log:
        f"{runs}/tuning/tuned.log",
    shell:
        "{sys.executable:q} -m reflect_rl tuned --profile {profile.name:q} --env '{asked}' > {log:q} 2>&1"
