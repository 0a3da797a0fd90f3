"""`python -m octdino.cli` is the program `octdino`."""

import sys

from octdino.cli import main

sys.exit(main())
