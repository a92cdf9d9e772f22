"""`python -m segflow.cli`: the command without an installed script."""

import sys

from segflow.cli import main

sys.exit(main())
