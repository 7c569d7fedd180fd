"""`python -m kctl`: the console script without an installation."""

import sys

from kctl.main import main

sys.exit(main())
