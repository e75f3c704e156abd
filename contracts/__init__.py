"""The words all programs share: ids, records, events, subjects, errors, clock. Standard library only, no I/O."""
