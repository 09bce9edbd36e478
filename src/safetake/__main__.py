"""`python -m safetake` is the command `safetake`."""

from safetake.cli import main

main()
