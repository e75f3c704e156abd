"""`postroom`: the command line that starts everything, sends, listens, and explains."""
