from semcache.cli import main

main(prog_name="semcache")
