"""`python -m stylewatch`."""

import sys

from stylewatch.cli import main

sys.exit(main())
