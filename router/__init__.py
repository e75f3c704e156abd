"""The sorting office: decides, records, and keeps what it promised."""
