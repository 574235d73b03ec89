"""The command `stylewatch`, and `python -m stylewatch`."""

import sys


def main() -> int:
    """Loads the command line and runs it; Ctrl-C meanwhile ends both without a traceback."""
    try:
        from stylewatch.cli import main  # noqa: PLC0415  (see above)

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
