"""`python -m mistral_ext` is the command `mistral-ext`."""

import sys

from mistral_ext.cli import main

if __name__ == "__main__":
    sys.exit(main())
