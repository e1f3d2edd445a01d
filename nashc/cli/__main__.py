"""python -m nashc.cli."""

from nashc.cli import main

main()
