"""Labels a router.yaml in a process of its own, so that a test can kill it: ``python label_program.py router.yaml [--batch]``."""

from __future__ import annotations

import sys

from distill.errors import DistillError
from distill.spec import load_spec
from distill.teacher import batch
from distill.teacher.label import label

if __name__ == "__main__":
    try:
        batch.FIRST_PAUSE_S = batch.LONGEST_PAUSE_S = 0.02
        label(load_spec(sys.argv[1]), batch="--batch" in sys.argv)
    except DistillError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
