"""The command line: parses, calls, prints. Results go to stdout, everything else to stderr."""

from distill.cli import bundles, stages
from distill.cli.app import app, main

__all__ = ["app", "main"]

stages.add_to(app)
bundles.add_to(app)
