"""`python -m l4raw`."""

from l4raw.cli.main import main

if __name__ == "__main__":
    main()
