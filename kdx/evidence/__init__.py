"""Claims of papers, put to the test: declared in YAML, run over seeds, judged by one rule."""
