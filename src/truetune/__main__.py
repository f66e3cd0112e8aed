"""`python -m truetune`: the command line."""

import sys

from truetune.cli import main

sys.exit(main())
