"""How fast is the way from files to pixels? Prints a table of ratios."""

from kdx.benchmarks import run

if __name__ == "__main__":
    run()
