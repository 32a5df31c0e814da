"""The command line: notebooks through papermill, whole profiles through Snakemake."""
