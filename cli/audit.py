"""`postroom audit`: does what the ledger tells hold together?"""
