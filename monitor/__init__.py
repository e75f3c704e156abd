"""The agent's host: keeps live sessions attached, hands them what is offered, and runs background work."""
