"""Teacher stage: synthesises queries and has them labelled, blind, one paid answer a ledger line."""
