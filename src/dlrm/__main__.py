"""`python -m dlrm` is the command line."""

import sys

from dlrm.cli import main

sys.exit(main())
