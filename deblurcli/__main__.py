"""``deblur`` and ``python -m deblurcli``. Ctrl-C while Python still loads leaves no traceback."""

import sys

try:
    from deblurcli.cli import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
