"""``distill init``: from what a user has to a router.yaml that runs."""

from distill.init.draft import Draft, Options, draft
from distill.init.project import Written, write_project
from distill.init.sources import Source, read_source

__all__ = ["Draft", "Options", "Source", "Written", "draft", "read_source", "write_project"]
