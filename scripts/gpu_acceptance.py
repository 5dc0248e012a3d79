"""Check on a GPU what only a GPU can show, in at most 8 minutes; prints a table, and writes JSON with --to FILE.

python scripts/gpu_acceptance.py --to gpu.json
"""

from checks.gpu_acceptance import main

if __name__ == "__main__":
    main()
