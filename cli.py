"""Launcher: `python cli.py train`, `torchrun cli.py train`, `accelerate launch cli.py train`."""

from qpairs.commands import main

if __name__ == "__main__":
    main()
