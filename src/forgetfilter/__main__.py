"""`python -m forgetfilter` is the command `forgetfilter`."""

from forgetfilter.cli import main

if __name__ == "__main__":
    main()
