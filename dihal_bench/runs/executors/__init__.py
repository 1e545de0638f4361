"""Runs are done somewhere: in this process, in several, on a Ray cluster, on a Slurm cluster."""
