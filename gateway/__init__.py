"""The front door: who is calling, who is meant, and the HTTP that says so."""
