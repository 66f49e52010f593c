"""Labels a router.yaml in a process of its own, so that a test can kill it: ``python label_program.py router.yaml``."""

from __future__ import annotations

import sys

from distill.errors import DistillError
from distill.spec import load_spec
from distill.teacher.label import label

if __name__ == "__main__":
    try:
        label(load_spec(sys.argv[1]))
    except DistillError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
