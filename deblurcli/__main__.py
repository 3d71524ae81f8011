"""``python -m deblurcli`` is ``deblur``."""

import sys

from deblurcli.cli import main

if __name__ == "__main__":
    sys.exit(main())
