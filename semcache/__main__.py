"""``python -m semcache``, for where the command itself is not on the path."""

from semcache.cli import main

main(prog_name="semcache")
