"""The command line: parses, calls, prints. Results go to stdout, everything else to stderr."""

from distill.cli import bundles, carrying, improvement, init, inspection, publish, stages
from distill.cli.app import app, main

__all__ = ["app", "main"]

init.add_to(app)
stages.add_to(app)
carrying.add_to(app)
improvement.add_to(app)
bundles.add_to(app)
inspection.add_to(app)
publish.add_to(app)
