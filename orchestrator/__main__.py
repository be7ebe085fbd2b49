"""``python -m orchestrator`` is the ``edgebed`` command."""

import sys

from orchestrator.cli import main

sys.exit(main())
