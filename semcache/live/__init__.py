"""What a cache learns while it works: shadow mode, audits with an anytime-valid bound, and feedback."""
