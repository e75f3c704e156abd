"""The HTTP routes, one file per noun. Each converts a request into a call and its result into an answer; no policy."""
